//! The cases of which something else is true where sessions are unlike those of most backends.

use crate::backend::Otherwise;

/// Where a session ends with its connection.
pub(crate) const CONNECTIONS: &[Otherwise] = &[
    Otherwise {
        case: "servers::a_restart_within_the_timeout_loses_nothing",
        why: "sessions end with the server",
        instead: Some("connections::a_restart_is_told_at_once_and_mended"),
    },
    Otherwise {
        case: "servers::a_restart_beyond_the_timeout_is_told_in_time_and_mended",
        why: "that is told at once, not in time",
        instead: Some("connections::a_long_absence_of_the_server_is_told_at_once_and_mended"),
    },
    Otherwise {
        case: "cut::a_reset_within_the_timeout_loses_nothing",
        why: "sessions end with their connections",
        instead: Some("connections::a_reset_is_told_at_once_and_mended"),
    },
    Otherwise {
        case: "cut::a_refused_client_knows_its_loss_before_another_is_granted",
        why: "a reset is told to both sides at once, in no order",
        instead: Some("connections::a_reset_is_told_at_once_and_mended"),
    },
    Otherwise {
        case: "cut::resets_in_the_middle_of_everything_lose_nothing",
        why: "sessions end with their connections",
        instead: Some("connections::resets_in_the_middle_of_everything_leave_one_owner"),
    },
    Otherwise {
        case: "replies::a_lost_reply_of_release_frees_once",
        why: "a client that gave back by a connection that broke is told of the loss",
        instead: Some("connections::a_lost_reply_of_release_frees_once"),
    },
    Otherwise {
        case: "replies::a_lost_reply_of_join_leaves_one_member",
        why: "the member that joined by a connection that broke has left",
        instead: Some("connections::a_lost_reply_of_join_leaves_one_member"),
    },
    Otherwise {
        case: "dead::closing_ends_in_time_though_the_server_is_dead",
        why: "what was held there ended with the server",
        instead: Some("connections::closing_ends_in_time_though_the_server_has_gone"),
    },
];

/// Where nothing outlives the process of the server.
pub(crate) const FORGETFUL: &[Otherwise] = &[Otherwise {
    case: "servers::a_restart_within_the_timeout_loses_nothing",
    why: "nothing outlives the server's process",
    instead: Some("forgetful::a_restart_is_told_before_another_is_granted_and_mended"),
}];
