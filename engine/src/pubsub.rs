//! Subscriptions to counters: a message when the value differs from the last one sent, at most once per
//! interval.
//!
//! The timing is the original's: subscriptions are looked at once a second (`TICK`); after a message one with
//! an interval of n seconds is left alone until the n-th look. The last value sent is 0 at first, so a counter
//! that is not zero is sent once after subscribing; several changes within an interval make one message, a change
//! that was undone none.
//!
//! Cost is bounded by the number of subscriptions, never by the number of counters.

use crate::clients::{Client, Clients};
use crate::keyspace::Keyspace;
use crate::time::Micros;
use crate::value::Value;
use parking_lot::Mutex;
use resp::ReplyWriter;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How often subscriptions are looked at.
pub(crate) const TICK: Micros = Micros::from_secs(1);

/// Longest interval of ISUBSCRIBE in seconds (ten years).
pub(crate) const MAX_INTERVAL_SECS: u64 = 315_360_000;

/// All subscriptions of a node.
#[derive(Debug, Default)]
pub(crate) struct Pubsub {
    /// By counter name.
    subscriptions: Mutex<BTreeMap<Box<[u8]>, OfCounter>>,
}

/// A counter's subscriptions by client id.
type OfCounter = BTreeMap<u64, Subscription>;

#[derive(Debug)]
struct Subscription {
    client: Arc<Client>,
    interval_secs: u64,
    /// Looks until the next message may be sent; 0 until the first.
    ticks_left: u64,
    last_sent: Value,
}

impl Pubsub {
    /// Adds a subscription; a repeated one keeps its first interval. Returns whether it is new.
    pub(crate) fn add(&self, client: &Arc<Client>, name: &[u8], interval_secs: u64) -> bool {
        let interval_secs = interval_secs.max(1);
        if !client.subscriptions.lock().insert(name.into()) {
            return false;
        }
        client.subscription_count.fetch_add(1, Ordering::Relaxed);
        let subscription =
            Subscription { client: Arc::clone(client), interval_secs, ticks_left: 0, last_sent: Value::ZERO };
        self.subscriptions.lock().entry(name.into()).or_default().insert(client.id, subscription);
        true
    }

    /// Ends a subscription. False if there was none.
    pub(crate) fn remove(&self, client: &Client, name: &[u8]) -> bool {
        if !client.subscriptions.lock().remove(name) {
            return false;
        }
        client.subscription_count.fetch_sub(1, Ordering::Relaxed);
        let mut all = self.subscriptions.lock();
        if let Some(of_counter) = all.get_mut(name) {
            of_counter.remove(&client.id);
            if of_counter.is_empty() {
                all.remove(name);
            }
        }
        true
    }

    /// How many counters somebody subscribes to.
    pub(crate) fn counters(&self) -> usize {
        self.subscriptions.lock().len()
    }

    /// Looks at every subscription and sends what has changed.
    pub(crate) fn tick(&self, keyspace: &Keyspace, now: Micros) {
        let mut frame = Vec::new();
        for (name, of_counter) in self.subscriptions.lock().iter_mut() {
            let mut value = None;
            for subscription in of_counter.values_mut() {
                subscription.ticks_left = subscription.ticks_left.saturating_sub(1);
                if subscription.ticks_left > 0 {
                    continue;
                }
                let value = *value.get_or_insert_with(|| keyspace.total(name, now).unwrap_or(Value::ZERO));
                if value == subscription.last_sent {
                    continue;
                }
                subscription.last_sent = value;
                subscription.ticks_left = subscription.interval_secs;
                frame.clear();
                let mut reply = ReplyWriter::new(&mut frame, subscription.client.protocol());
                reply.push(3);
                reply.bulk(b"message");
                reply.bulk(name);
                reply.bulk(value.format(&mut [0; Value::MAX_TEXT_LEN]).as_bytes());
                subscription.client.send(&frame);
            }
        }
    }

    /// Ends every subscription, as when all counters are deleted, and tells the subscribers.
    pub(crate) fn end_all(&self) {
        let all = std::mem::take(&mut *self.subscriptions.lock());
        let mut frame = Vec::new();
        for (name, of_counter) in all {
            for subscription in of_counter.into_values() {
                let client = &subscription.client;
                if !client.subscriptions.lock().remove(&name) {
                    continue;
                }
                let left = client.subscription_count.fetch_sub(1, Ordering::Relaxed) - 1;
                frame.clear();
                let mut reply = ReplyWriter::new(&mut frame, client.protocol());
                reply.push(3);
                reply.bulk(b"unsubscribe");
                reply.bulk(&name);
                reply.integer(left as i64);
                client.send(&frame);
            }
        }
    }

    /// Takes a departing client off the lists.
    pub(crate) fn forget(&self, client: &Client, keyspace: &Keyspace, clients: &Clients, now: Micros) {
        self.remove_all(client, keyspace, now);
        clients.remove(client);
    }

    /// Ends a client's subscriptions without a word to it.
    pub(crate) fn remove_all(&self, client: &Client, keyspace: &Keyspace, now: Micros) {
        let names: Vec<Box<[u8]>> = client.subscriptions.lock().iter().cloned().collect();
        for name in names {
            if self.remove(client, &name) {
                keyspace.unsubscribe(&name, now);
            }
        }
    }
}
