//! What is this driver's own: processes and servers that are really killed, connections that are counted, names that share a key,
//! poolers, and databases that are not as they should be.

mod access;
mod bed;
mod dead;
mod faults;
mod hung;
mod layout;
mod locks;
mod pooler;
mod rotation;
mod scarce;
mod statements;

use std::process::ExitCode;

use libtest_mimic::{Failed, Trial};
use tooz_conformance::own::Own;
use tooz_postgres as _;
use tooz_testbed::{Kind, for_tests};

use crate::bed::{Store, role, run};

/// They take the whole of a small machine.
const CROWDS: &[&str] = &[
    "few_of_many_watchers_look_who_has_died",
    "a_thousand_names_are_a_thousand_locks",
    "ten_thousand_locks_live_on_one_connection",
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--role") {
        let given: Vec<String> = arguments.collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        run(role(&given));
        return ExitCode::SUCCESS;
    }
    let own = Own::new(for_tests(Kind::Postgres).why_none_to_break(Kind::Postgres), CROWDS);
    macro_rules! trials {
        ($($module:ident::$name:ident),* $(,)?) => {
            vec![$(trial(&own, stringify!($name), |store| run($module::$name(store)))),*]
        };
    }
    #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "certificates are one more"))]
    let mut trials = trials![
        faults::the_lock_of_a_killed_holder_is_the_next_ones,
        faults::a_killed_member_has_left_and_a_stopped_one_too,
        faults::a_killed_leader_leaves_a_vacancy,
        faults::a_terminated_back_end_is_a_loss_that_is_told_at_once,
        faults::a_killed_server_loses_all_locks_and_tokens_grow_over_it,
        faults::lost_replies_leave_nothing_behind,
        faults::a_silent_cut_of_a_waiter_is_no_obstacle,
        locks::names_that_share_a_key_are_told_apart,
        locks::a_thousand_names_are_a_thousand_locks,
        locks::more_than_a_member_may_say_is_refused,
        locks::ten_thousand_locks_live_on_one_connection,
        locks::a_full_lock_table_names_the_setting,
        locks::a_hundred_waiting_tasks_share_few_connections,
        locks::who_has_no_connection_to_wait_on_still_gets_a_free_lock,
        locks::who_has_no_connection_to_wait_on_is_not_starved_by_a_queue,
        faults::nothing_is_left_behind,
        faults::what_the_dead_left_is_swept,
        dead::a_spoiled_or_locked_group_keeps_up_no_other,
        dead::the_check_up_tells_that_the_dead_can_not_be_taken_away,
        access::a_standby_is_refused,
        access::several_hosts_are_refused,
        access::a_wrong_password_is_told_as_such,
        access::without_rights_to_create_the_ddl_is_named_and_is_enough,
        access::a_schema_may_have_any_name,
        access::a_unix_socket_will_do,
        access::tls_is_checked_or_said_to_be_missing,
        access::a_database_that_is_not_there_is_told,
        access::the_check_up_tells_what_it_found,
        locks::a_holder_is_shown_however_short_it_holds,
        locks::a_try_after_a_turn_finds_the_gate_open,
        locks::waiters_are_those_in_the_servers_queue,
        locks::locks_are_listed_however_short_they_are_held,
        pooler::in_transaction_mode_is_refused,
        pooler::in_statement_mode_is_refused,
        pooler::in_transaction_mode_grants_nothing_twice_however_busy,
        pooler::in_session_mode_will_do,
        pooler::that_refuses_what_is_sent_is_told_as_one,
        dead::three_thousand_dead_of_other_namespaces_are_no_line_in_the_log,
        dead::thousands_of_dead_in_one_group_are_gone_within_seconds_and_all_are_told,
        dead::a_group_and_a_lock_full_of_dead_fill_no_lock_table,
        dead::what_one_session_leaves_in_thousands_is_taken_away_by_steps,
        dead::few_of_many_watchers_look_who_has_died,
        dead::who_may_only_read_hears_of_deaths_and_fills_no_log,
        hung::readers_keep_no_stopped_holder_alive,
        hung::the_back_end_of_a_stopped_watcher_is_ended,
        hung::a_stopped_waiter_is_no_obstacle_for_a_minute,
        hung::a_stopped_young_holder_hides_no_other,
        hung::what_can_not_be_read_is_left_out,
        hung::the_check_up_sees_what_is_wrong,
        scarce::a_waiter_that_gets_no_connection_says_so_once_and_tries,
        statements::what_is_late_is_ended_and_the_session_lives,
        statements::callers_that_go_away_leave_the_connection_as_it_was,
        statements::a_caller_that_blocks_after_it_has_asked_is_in_no_way,
        statements::a_cut_at_any_byte_of_an_answer_keeps_no_lock,
        statements::what_is_told_during_a_statement_is_heard_with_its_end,
        layout::the_first_member_brings_an_older_schema_up_to_date,
        layout::members_of_an_older_revision_go_on_beside_newer_ones,
        layout::who_does_not_own_an_older_schema_is_told_who_does,
        layout::another_layout_is_refused_before_anything_is_owned,
        layout::what_a_newer_version_has_made_is_left_alone,
        layout::a_schema_that_was_dropped_is_made_anew,
        rotation::a_password_that_was_changed_at_the_server_and_in_its_file_needs_no_restart,
        rotation::the_application_is_asked_for_the_password_at_each_connection,
        access::a_missing_grant_is_named,
        access::a_database_that_is_not_utf_8_is_refused,
        access::limits_that_are_set_for_the_role_end_no_wait,
        faults::a_lost_synchronous_standby_takes_no_lock_and_keeps_none,
        faults::a_notification_that_hangs_takes_no_lock,
        faults::a_server_that_stood_still_frees_the_locks_of_the_lost_when_it_goes_on,
    ];
    #[cfg(feature = "tls")]
    trials.extend(trials![rotation::certificates_are_read_again_at_each_connection]);
    own.main(trials)
}

fn trial(own: &Own, name: &str, case: fn(Store)) -> Trial {
    let namespace = name.to_owned();
    own.trial(name, move || {
        case(Store::shared(&namespace).map_err(Failed::from)?);
        Ok(())
    })
}
