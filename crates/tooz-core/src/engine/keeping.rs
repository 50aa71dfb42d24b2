//! What the keeper of a membership does when: join, update, re-join after a loss and leave never overtake each other.
//!
//! | it stands | what happens | then |
//! |---|---|---|
//! | in | an update | it is said to its end, also past its time limit: a newer one must not be overtaken |
//! | in | the session is lost | out |
//! | in | taken over, the group deleted, the coordinator closed | over |
//! | out | a session, and a join in it | in |
//! | out | the group is missing | over; where the join was to create it, it is made again, and joined |
//! | out | a refusal of whatever kind | out, tried again with pauses, and told |
//! | out | a namesake, whose session ends at a moment that the backend names | out until that moment, over after it |
//! | in or out | a leave, or the last handle dropped | over |

use crate::engine::keeper::{Keeper, Order, answer_all};
use crate::engine::standing::Standing;

/// What ends the quiet of a membership that stands.
enum Event {
    Ordered(Order),
    /// All handles of it are gone.
    Dropped,
    /// It does not stand any more, or its session is lost.
    Lost,
}

impl Keeper {
    pub(crate) async fn keep(mut self) {
        self.keep_up().await;
        // An order from just before the end is answered, and no more can come: an order that races the end must not wait for ever.
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            let (Order::Update(_, answer) | Order::Leave(answer)) = order;
            let _ = answer.send(Err(self.over_error()));
        }
        answer_all(std::mem::take(&mut self.unfinished), &Err(self.over_error()));
    }

    async fn keep_up(&mut self) {
        loop {
            let Standing::In(hold) = self.standing.borrow().clone() else { return };
            let event = tokio::select! {
                order = self.orders.recv() => order.map_or(Event::Dropped, Event::Ordered),
                Ok(()) = self.found.changed() => {
                    self.restore(&hold).await;
                    continue;
                }
                () = async { tokio::select! { _ = hold.lost.wait() => {}, _ = hold.live.lost() => {} } } => Event::Lost,
            };
            match event {
                // That is a leave without a waiter.
                Event::Dropped => return self.leave(&hold, None).await,
                Event::Ordered(Order::Leave(answer)) => return self.leave(&hold, Some(answer)).await,
                Event::Ordered(Order::Update(capabilities, answer)) => {
                    self.update(&hold, capabilities, vec![answer]).await;
                }
                Event::Lost => {
                    if !self.rejoin(&hold).await {
                        return;
                    }
                }
            }
        }
    }
}
