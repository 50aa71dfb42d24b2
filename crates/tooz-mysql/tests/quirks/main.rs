//! What is this driver's own: processes and servers that are really killed, users with few rights, servers that are not as they should be, and tables that
//! others change meanwhile.

mod access;
mod bed;
mod defaults;
mod faults;
mod locks;
mod rows;
mod scarce;
mod tables;

use std::process::ExitCode;

use libtest_mimic::{Failed, Trial};
use tooz_conformance::own::Own;
use tooz_mysql as _;
use tooz_testbed::{Kind, for_tests};

use crate::bed::{Store, role, run};

/// They take the whole of a small machine.
const CROWDS: &[&str] = &[
    "ten_thousand_locks_live_on_one_connection",
    "forty_members_that_wait_in_a_row_all_get_their_turn",
    "thousands_that_are_given_back_at_once_are_written_off_together",
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--role") {
        let given: Vec<String> = arguments.collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        run(role(&given));
        return ExitCode::SUCCESS;
    }
    let own = Own::new(for_tests(Kind::MySql).why_none_to_break(Kind::MySql), CROWDS);
    macro_rules! trials {
        ($($module:ident::$name:ident),* $(,)?) => {
            vec![$(trial(&own, stringify!($name), |store| run($module::$name(store)))),*]
        };
    }
    let trials = trials![
        faults::the_lock_of_a_killed_holder_is_the_next_ones,
        faults::the_lock_of_a_stopped_holder_is_the_next_ones_and_not_early,
        faults::in_a_pool_of_threads_a_stopped_holder_is_ended_too,
        faults::a_stopped_waiter_holds_others_up_for_its_timeout_alone,
        faults::a_stopped_waiter_behind_readers_holds_others_up_for_little_more,
        faults::a_sentinel_that_has_the_lock_of_the_dead_is_no_session,
        faults::tokens_grow_over_restarts_within_a_second,
        faults::a_membership_that_was_taken_over_is_told_at_once,
        faults::nothing_is_left_behind,
        faults::a_commit_that_takes_longer_than_the_session_timeout_ends_no_session,
        faults::a_group_is_made_and_deleted_by_a_connection_that_has_ended_meanwhile,
        locks::a_thousand_names_are_a_thousand_locks,
        locks::ten_thousand_locks_live_on_one_connection,
        locks::forty_members_that_wait_in_a_row_all_get_their_turn,
        locks::a_hundred_waiting_tasks_share_few_connections,
        locks::waiters_are_those_in_the_servers_queue,
        locks::a_holder_is_shown_however_short_it_holds,
        locks::an_error_after_the_grant_gives_the_lock_back,
        locks::an_uncontended_lock_writes_nothing,
        locks::thousands_that_are_given_back_at_once_are_written_off_together,
        rows::tokens_grow_also_when_rows_of_sessions_or_of_the_fence_are_lost,
        rows::grants_that_were_taken_out_of_the_table_are_written_once_more,
        rows::a_grant_that_could_not_be_taken_out_of_the_table_goes_later,
        tables::a_change_of_a_table_ends_no_session_and_keeps_no_request_waiting_for_long,
        tables::another_layout_is_refused_before_anything_is_owned,
        tables::tables_that_were_dropped_are_made_again,
        tables::a_share_whose_row_is_gone_is_lost,
        tables::of_many_shares_all_whose_rows_are_gone_are_lost,
        tables::a_group_deleted_by_hand_ends_its_memberships,
        tables::capabilities_that_no_packet_holds_are_refused_and_end_no_session,
        tables::databases_that_differ_in_case_are_what_the_server_takes_them_for,
        tables::a_database_may_have_any_name,
        access::without_rights_to_create_the_ddl_is_named_and_is_enough,
        access::what_is_missing_is_told_with_the_command_for_that_database,
        access::a_wrong_password_is_told_as_such,
        access::a_read_only_server_is_refused,
        access::several_hosts_are_refused,
        defaults::whatever_a_server_gives_by_default_a_lock_has_one_holder,
        access::a_unix_socket_will_do,
        access::tls_is_checked_or_said_to_be_missing,
        access::the_check_up_tells_what_it_found,
        access::the_check_up_warns_of_a_small_pool_of_threads,
        access::a_locked_account_is_told_as_such,
        scarce::a_member_without_a_watchdog_hears_of_its_end_soon,
        scarce::a_waiter_that_gets_no_connection_says_so_once_and_tries,
        scarce::a_slow_commit_ends_no_session_where_no_witness_is_let_in,
        scarce::many_long_names_go_through_small_packets,
        scarce::a_storm_of_interruptions_is_outlived_or_its_end_is_told,
        scarce::an_answer_that_will_not_come_is_not_waited_for,
    ];
    own.main(trials)
}

fn trial(own: &Own, name: &str, case: fn(Store)) -> Trial {
    let namespace = name.to_owned();
    own.trial(name, move || {
        case(Store::shared(&namespace).map_err(Failed::from)?);
        Ok(())
    })
}
