//! What members know of each other: liveness by evidence, gossip, forgetting, calls, meetings, the nodes file.

use engine::cluster::gossip::{Announcement, GossipEntry};
use engine::cluster::members::{
    CLONE_WINDOW, DialTarget, Greeting, MAX_MEETS, MAX_MEMBERS, MemberState, Members, News, Report,
};
use engine::cluster::nodes_file::{NodesFile, ResetEpoch};
use engine::cluster::view::Traffic;
use engine::time::Micros;
use engine::{MemberIndex, NodeId};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

const TIMEOUT: Micros = Micros::from_secs(2);

fn id(byte: u8) -> NodeId {
    NodeId([byte; 20])
}

fn announcement(byte: u8) -> Announcement {
    Announcement {
        id: id(byte),
        incarnation: 10,
        joined: 10,
        number: 0,
        ip: Some(IpAddr::from([10, 0, 0, byte])),
        port: 5262,
        bus_port: 15262,
    }
}

fn ms(ms: u64) -> Micros {
    Micros::from_millis(ms)
}

/// Node 5 of a cluster with these others.
fn members(others: &[u8]) -> Members {
    let mut members = Members::new(announcement(5), 1, ms(0));
    for &byte in others {
        let news = members.merge_gossip(GossipEntry::Member(announcement(byte)), ms(0));
        assert!(matches!(news, News::Added(_)));
    }
    members
}

fn index(members: &Members, byte: u8) -> MemberIndex {
    members.index_of(id(byte)).expect("a member")
}

fn report(stamp_ms: u64, age_ms: u64) -> Report {
    Report { evidence: (10, ms(stamp_ms)), age: ms(age_ms) }
}

fn text(members: &Members, now: Micros) -> String {
    members.view((now, TIMEOUT), Traffic::default(), |_| None).nodes_text()
}

#[test]
fn a_member_is_suspected_when_nobody_has_heard_of_it_for_the_timeout() {
    let mut members = members(&[1, 2]);
    let (a, b) = (index(&members, 1), index(&members, 2));
    members.heard(a, (10, ms(1)), ms(1000));
    assert_eq!(members.state(a, ms(3000), TIMEOUT), MemberState::Alive);
    assert_eq!(members.state(a, ms(3001), TIMEOUT), MemberState::Suspect);
    members.report(b, a, report(2, 500), ms(3100));
    assert_eq!(
        members.state(a, ms(4600), TIMEOUT),
        MemberState::Alive,
        "relayed evidence counts from its moment"
    );
    assert_eq!(members.state(a, ms(4601), TIMEOUT), MemberState::Suspect);
}

#[test]
fn a_dead_member_is_not_kept_alive_by_hearsay_that_goes_in_circles() {
    let (mut left, mut right) = (members(&[1, 2]), members(&[1, 2]));
    let (dead, other) = (index(&left, 1), index(&left, 2));
    left.heard(dead, (10, ms(77)), ms(0));
    right.heard(dead, (10, ms(77)), ms(0));
    for step in 0..100 {
        let (sent, arrived) = (ms(step * 100), ms(step * 100 + 90));
        let (to_right, to_left) = (left.known_of(dead, sent), right.known_of(dead, sent));
        right.report(other, dead, to_right, arrived);
        left.report(other, dead, to_left, arrived);
    }
    assert_ne!(left.state(dead, ms(2100), TIMEOUT), MemberState::Alive);
    assert_eq!(left.known_of(dead, ms(10_000)).age, ms(10_000));
}

#[test]
fn a_member_is_down_when_a_majority_of_all_known_agrees_and_not_before() {
    let mut five = members(&[1, 2, 3, 4]);
    let dead = index(&five, 1);
    let now = ms(5000);
    assert_eq!(five.state(dead, now, TIMEOUT), MemberState::Suspect);
    five.report(index(&five, 2), dead, report(0, 4000), now);
    assert_eq!(five.state(dead, now, TIMEOUT), MemberState::Suspect, "two of five");
    five.report(index(&five, 3), dead, report(0, 1500), now);
    assert_eq!(five.state(dead, now, TIMEOUT), MemberState::Suspect, "an age below the timeout is no vote");
    five.report(index(&five, 3), dead, report(0, 2500), now);
    assert_eq!(five.state(dead, now, TIMEOUT), MemberState::Down, "three of five");
    assert_eq!(five.failure_reports(dead, now, TIMEOUT), 2);
    assert_eq!(
        five.state(dead, ms(7001), TIMEOUT),
        MemberState::Suspect,
        "reports of silent members grow stale"
    );
    five.heard(dead, (10, ms(1)), ms(7100));
    assert_eq!(five.state(dead, ms(7101), TIMEOUT), MemberState::Alive);
}

#[test]
fn of_two_members_the_survivor_never_says_fail() {
    let two = members(&[1]);
    assert_eq!(two.state(index(&two, 1), ms(1_000_000), TIMEOUT), MemberState::Suspect);
}

#[test]
fn a_forgotten_member_has_no_vote() {
    let mut members = members(&[1, 2, 3]);
    let (dead, voter, gone) = (index(&members, 1), index(&members, 2), index(&members, 3));
    members.report(voter, dead, report(0, 4000), ms(5000));
    members.report(gone, dead, report(0, 4000), ms(5000));
    members.forget(id(3));
    assert_eq!(members.failure_reports(dead, ms(5000), TIMEOUT), 1);
}

#[test]
fn the_newest_announcement_wins_in_any_order() {
    let moved = Announcement { number: 1, ip: Some(IpAddr::from([10, 0, 9, 9])), ..announcement(1) };
    let restarted = Announcement { incarnation: 11, number: 0, port: 7000, ..announcement(1) };
    for order in [[moved, restarted], [restarted, moved]] {
        let mut members = members(&[1]);
        for told in order {
            members.merge_gossip(GossipEntry::Member(told), ms(1));
        }
        assert_eq!(members.announced(index(&members, 1)), Some(&restarted));
        assert_eq!(members.merge_gossip(GossipEntry::Member(restarted), ms(1)), News::None);
    }
}

#[test]
fn a_forgotten_member_stays_away_also_if_it_has_begun_anew() {
    let mut members = members(&[1, 2]);
    let gone = members.forget(id(1)).unwrap();
    assert_eq!(members.index_of(id(1)), None);
    assert_eq!(members.departed().collect::<Vec<_>>(), [(gone, id(1))]);
    let restarted = Announcement { incarnation: 12, ..announcement(1) };
    let anew = Announcement { incarnation: 12, joined: 12, ..announcement(1) };
    for told in [restarted, anew] {
        assert_eq!(members.merge_gossip(GossipEntry::Member(told), ms(1)), News::None);
        assert_eq!(members.greet(&told, ms(1)), Greeting::Forgotten);
    }
    assert_eq!(members.index_of(id(1)), None);
}

#[test]
fn forgetting_spreads_and_reaches_the_one_who_is_meant() {
    let mut first = members(&[1, 2]);
    first.forget(id(1));
    let entry = *first.gossip().last().unwrap();
    assert_eq!(entry, GossipEntry::Forgotten(id(1)));
    let mut second = members(&[1, 2]);
    assert!(matches!(second.merge_gossip(entry, ms(1)), News::Forgotten(_)));
    assert_eq!(second.merge_gossip(entry, ms(1)), News::None);
    let mut third = members(&[2]);
    assert_eq!(third.merge_gossip(entry, ms(1)), News::Barred);
    let mut itself = Members::new(announcement(1), 1, ms(0));
    for is_anew in [false, true] {
        assert_eq!(itself.merge_gossip(entry, ms(1)), News::WeAreForgotten, "begun anew: {is_anew}");
        itself.reset(None, 0, ms(2));
    }
    assert_eq!((itself.own().id, itself.own().joined), (id(1), 12));
}

#[test]
fn a_removal_that_arrives_late_ends_a_life_that_has_begun_since() {
    let mut unaware = members(&[1, 2]);
    let anew = Announcement { incarnation: 12, joined: 12, ..announcement(1) };
    assert!(matches!(unaware.merge_gossip(GossipEntry::Member(anew), ms(1)), News::Changed(_)));
    assert!(matches!(unaware.merge_gossip(GossipEntry::Forgotten(id(1)), ms(2)), News::Forgotten(_)));
    assert_eq!(unaware.index_of(id(1)), None);
}

#[test]
fn we_and_strangers_cannot_be_forgotten() {
    let mut members = members(&[1]);
    assert_eq!(members.forget(id(5)), None);
    assert_eq!(members.forget(id(9)), None);
    assert_eq!(members.peers().count(), 1);
}

#[test]
fn a_second_process_with_a_living_identity_is_a_clone_and_one_after_a_crash_is_not() {
    let mut members = members(&[1]);
    let a = index(&members, 1);
    let second = Announcement { incarnation: 11, ..announcement(1) };
    members.linked(a, None, None, ms(0));
    members.heard(a, (10, ms(5)), ms(1000));
    assert_eq!(members.greet(&second, ms(1100)), Greeting::Clone);
    assert_eq!(
        members.greet(&announcement(1), ms(1100)),
        Greeting::Welcome,
        "a second link of the same process"
    );
    assert_eq!(
        members.greet(&second, ms(1000) + CLONE_WINDOW),
        Greeting::Welcome,
        "the first has fallen silent"
    );
    members.unlinked(a, ms(1100));
    assert_eq!(members.greet(&second, ms(1101)), Greeting::Welcome, "the first has hung up");
    members.merge_gossip(GossipEntry::Member(announcement(2)), ms(1100));
    members.report(index(&members, 2), a, report(6, 0), ms(1200));
    assert_eq!(members.greet(&second, ms(1300)), Greeting::Clone, "others still hear the first");
}

#[test]
fn our_own_id_is_ourselves_or_our_clone() {
    let members = members(&[]);
    assert_eq!(members.greet(&announcement(5), ms(1)), Greeting::Ourselves);
    let clone = Announcement { incarnation: 11, ..announcement(5) };
    assert_eq!(members.greet(&clone, ms(1)), Greeting::OurClone);
    let mut members = members;
    assert_eq!(members.merge_gossip(GossipEntry::Member(clone), ms(1)), News::NewerSelf(11));
    members.raise_incarnation(11);
    assert_eq!(members.own().incarnation, 12);
}

#[test]
fn the_lower_id_calls_at_once_and_the_higher_after_a_second() {
    let mut members = members(&[1, 9]);
    let (lower, higher) = (index(&members, 1), index(&members, 9));
    let bus = |byte| SocketAddr::from(([10, 0, 0, byte], 15262));
    assert_eq!(members.dials_due(ms(0)), [(DialTarget::Member(higher), bus(9))]);
    assert_eq!(members.dials_due(ms(0)), [], "a call is under way");
    assert_eq!(members.deadline(TIMEOUT), ms(1000));
    assert_eq!(members.dials_due(ms(1000)), [(DialTarget::Member(lower), bus(1))]);
    members.linked(lower, None, None, ms(1000));
    members.linked(higher, None, None, ms(1000));
    assert_eq!(members.deadline(TIMEOUT), Micros::NEVER);
    members.unlinked(lower, ms(5000));
    members.unlinked(higher, ms(5000));
    assert_eq!(members.dials_due(ms(5000)), [(DialTarget::Member(higher), bus(9))]);
    members.dial_failed(DialTarget::Member(higher), "refused", ms(5000));
    assert_eq!(members.dials_due(ms(5050)), []);
    assert_eq!(members.dials_due(ms(5125)), [(DialTarget::Member(higher), bus(9))]);
}

#[test]
fn a_member_whose_address_answers_with_another_id_is_shown_without_address_until_it_announces_one() {
    let mut members = members(&[9]);
    let a = index(&members, 9);
    members.dials_due(ms(0));
    members.wrong_id(a, ms(10));
    assert!(text(&members, ms(10)).contains(&format!("{} :0 noaddr 0 0 disconnected\n", id(9))));
    assert_eq!(members.dials_due(ms(9999)), []);
    members.merge_gossip(GossipEntry::Member(Announcement { number: 1, ..announcement(9) }), ms(10_000));
    assert_eq!(members.dials_due(ms(10_000)).len(), 1);
}

#[test]
fn a_meeting_is_shown_called_given_up_and_counted() {
    let mut members = members(&[]);
    let bus = SocketAddr::from(([127, 0, 0, 1], 10001));
    assert_eq!(members.meet(bus, 1, ms(0)), Ok(true));
    assert_eq!(members.meet(bus, 1, ms(0)), Ok(false), "already under way");
    let due = members.dials_due(ms(0));
    let [(target @ DialTarget::Meet(meet), to)] = due[..] else { panic!("{due:?}") };
    assert_eq!(to, bus);
    assert!(text(&members, ms(0)).ends_with(&format!("{meet} 127.0.0.1:1 handshake 0 0 disconnected\n")));
    members.dial_failed(target, "connection refused", ms(1));
    assert!(members.expire_meets(ms(1999), TIMEOUT).is_empty());
    let failed = members.expire_meets(ms(2000), TIMEOUT);
    assert!(
        failed[0]
            .to_string()
            .contains("127.0.0.1:10001 given up after 2000 ms (1 failed calls): connection refused")
    );
    let view = members.view((ms(2000), TIMEOUT), Traffic::default(), |_| None);
    assert!(view.info_text().contains("cluster_known_nodes:1\r\n"));
    assert!(view.info_text().contains("cluster_meets_failed:1\r\n"));
}

#[test]
fn a_meeting_lasts_a_second_at_least_and_ends_without_failure_when_answered() {
    let mut members = members(&[]);
    members.meet(SocketAddr::from(([127, 0, 0, 1], 10001)), 1, ms(0)).unwrap();
    let DialTarget::Meet(meet) = members.dials_due(ms(0))[0].0 else { panic!() };
    assert!(members.expire_meets(ms(999), ms(100)).is_empty());
    assert_eq!(members.end_meet(meet, Ok(()), ms(999)), None);
    assert!(members.expire_meets(ms(9999), ms(100)).is_empty());
    assert!(!members.view((ms(1), TIMEOUT), Traffic::default(), |_| None).info_text().contains("failed"));
}

#[test]
fn meetings_and_members_have_limits() {
    let mut members = members(&[]);
    for port in 1..=MAX_MEETS as u16 {
        members.meet(SocketAddr::from(([127, 0, 0, 1], port)), port, ms(0)).unwrap();
    }
    assert!(members.meet(SocketAddr::from(([127, 0, 0, 2], 1)), 1, ms(0)).is_err());
    let numbered = |n: usize| {
        let mut other = announcement(0);
        other.id.0[..8].copy_from_slice(&n.to_be_bytes());
        other
    };
    for n in 1..MAX_MEMBERS {
        assert!(matches!(members.merge_gossip(GossipEntry::Member(numbered(n)), ms(0)), News::Added(_)));
    }
    let last = numbered(MAX_MEMBERS);
    assert_eq!(members.merge_gossip(GossipEntry::Member(last), ms(0)), News::Full);
    assert_eq!(members.greet(&last, ms(0)), Greeting::Full);
    members.forget(numbered(7).id).unwrap();
    assert_eq!(members.greet(&last, ms(0)), Greeting::Full, "departed members keep their place");
}

#[test]
fn a_member_that_announces_no_ip_is_reached_where_it_was_last_seen() {
    let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let told = Announcement { ip: None, ..announcement(9) };
    let mut members = members(&[]);
    members.merge_gossip(GossipEntry::Member(told), ms(0));
    let a = index(&members, 9);
    let known = |members: &Members| members.announced(a).unwrap().ip;
    members.linked(a, ip("::ffff:10.1.2.3"), None, ms(0));
    assert_eq!(known(&members), ip("10.1.2.3"));
    members.unlinked(a, ms(5000));
    members.linked(a, ip("10.1.2.4"), None, ms(5000));
    assert_eq!(known(&members), ip("10.1.2.3"), "nothing says that it can't be called there");
    // It has moved while it runs.
    members.unlinked(a, ms(15_000));
    assert_eq!(members.dials_due(ms(15_000)).len(), 1);
    members.dial_failed(DialTarget::Member(a), "no route", ms(15_000));
    members.linked(a, ip("10.1.2.5"), ip("10.1.2.3"), ms(16_000));
    assert_eq!(known(&members), ip("10.1.2.3"), "what is configured is not guessed");
    members.unlinked(a, ms(25_000));
    members.dials_due(ms(25_000));
    members.dial_failed(DialTarget::Member(a), "no route", ms(25_000));
    members.linked(a, ip("10.1.2.5"), None, ms(26_000));
    assert_eq!(known(&members), ip("10.1.2.5"));
    // It has been started elsewhere.
    let restarted = Announcement { incarnation: 11, ..told };
    members.merge_gossip(GossipEntry::Member(restarted), ms(30_000));
    members.linked(a, ip("10.1.2.6"), None, ms(30_000));
    assert_eq!(known(&members), ip("10.1.2.6"));
}

#[test]
fn a_restart_keeps_the_members_and_begins_a_later_incarnation() {
    let mut before = members(&[1, 2, 9]);
    before.forget(id(2));
    before.linked(index(&before, 1), None, None, ms(0));
    let reset = ResetEpoch { clock: 7, author: id(1) };
    let bytes = before.nodes_file(ms(0), TIMEOUT, reset).write();
    let file = NodesFile::parse(&bytes).unwrap();
    assert_eq!(file.reset, reset);
    let start = Announcement { id: id(200), incarnation: 3, joined: 3, ip: None, ..announcement(0) };
    let after = Members::load(&file, start, 1, ms(0));
    assert_eq!((after.own().id, after.own().incarnation, after.own().joined), (id(5), 11, 10));
    assert_eq!(after.peers().map(|(_, peer)| *peer).collect::<Vec<_>>(), [announcement(1), announcement(9)]);
    assert_eq!(after.greet(&announcement(2), ms(0)), Greeting::Forgotten);
    assert_eq!(after.own().ip, None, "the ip that was announced before is not configured any more");
}

#[test]
fn a_hard_reset_takes_the_new_id_and_knows_nobody() {
    let mut members = members(&[1, 2]);
    members.meet(SocketAddr::from(([127, 0, 0, 1], 1)), 1, ms(0)).unwrap();
    members.forget(id(2));
    let revision = members.revision();
    members.reset(Some(id(77)), 500, ms(1));
    assert_eq!(text(&members, ms(1)), format!("{} 10.0.0.5:5262 myself 0 0 connected\n", id(77)));
    assert_eq!((members.own().incarnation, members.own().joined), (500, 500));
    assert!(members.revision() > revision);
    assert_eq!(members.gossip().len(), 1);
}

#[test]
fn pings_and_pongs_are_shown_as_the_original_shows_them() {
    let mut members = members(&[1]);
    let a = index(&members, 1);
    members.ping_sent(a, ms(1_795_357_134_150));
    members.ping_sent(a, ms(1_795_357_134_999));
    assert!(text(&members, ms(0)).contains("noflags 1795357134150 0 disconnected"));
    members.pong_received(a, ms(1_795_357_148_063));
    members.linked(a, None, None, ms(0));
    assert!(text(&members, ms(0)).contains("noflags 0 1795357148063 connected"));
}

#[derive(Clone, Debug)]
enum Step {
    Gossip(GossipEntry),
    Forget(u8),
    Link(u8, bool),
    Heard(u8, u64),
    Dial,
    Meet(u16),
    WrongId(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let byte = 0u8..8;
    let member = (byte.clone(), 9u32..13, 9u32..13, 0u32..3, any::<bool>()).prop_map(
        |(byte, i, j, number, has_ip)| {
            let ip = announcement(byte).ip.filter(|_| has_ip);
            GossipEntry::Member(Announcement {
                incarnation: i,
                joined: j.min(i),
                number,
                ip,
                ..announcement(byte)
            })
        },
    );
    let forgotten = byte.clone().prop_map(|byte| GossipEntry::Forgotten(id(byte)));
    prop_oneof![
        6 => member.prop_map(Step::Gossip),
        2 => forgotten.prop_map(Step::Gossip),
        1 => byte.clone().prop_map(Step::Forget),
        3 => (byte.clone(), any::<bool>()).prop_map(|(byte, is_up)| Step::Link(byte, is_up)),
        2 => (byte.clone(), 0u64..100).prop_map(|(byte, stamp)| Step::Heard(byte, stamp)),
        2 => Just(Step::Dial),
        1 => (1u16..5).prop_map(Step::Meet),
        1 => byte.prop_map(Step::WrongId),
    ]
}

proptest! {
    /// Whatever happens: ids stand for one live index, the nodes file reads back, gossip is accepted by others.
    #[test]
    fn any_history_leaves_a_table_that_can_be_saved_and_told(steps in prop::collection::vec(step(), 0..60)) {
        let mut members = members(&[]);
        for (n, step) in steps.into_iter().enumerate() {
            let now = ms(n as u64 * 300);
            match step {
                Step::Gossip(entry) => {
                    members.merge_gossip(entry, now);
                    let again = members.merge_gossip(entry, now);
                    prop_assert!(matches!(again, News::None | News::NewerSelf(_) | News::WeAreForgotten));
                }
                Step::Forget(byte) => {
                    members.forget(id(byte));
                }
                Step::Link(byte, is_up) => match members.index_of(id(byte)) {
                    Some(index) if index != MemberIndex::SELF && is_up => members.linked(index, None, None, now),
                    Some(index) if index != MemberIndex::SELF => members.unlinked(index, now),
                    Some(_) | None => {}
                },
                Step::Heard(byte, stamp) => {
                    if let Some(index) = members.index_of(id(byte)) {
                        members.heard(index, (11, ms(stamp)), now);
                    }
                }
                Step::Dial => {
                    for (target, _) in members.dials_due(now) {
                        members.dial_failed(target, "x", now);
                    }
                    members.expire_meets(now, TIMEOUT);
                }
                Step::Meet(port) => {
                    let _ = members.meet(SocketAddr::from(([127, 0, 0, 1], port)), port, now);
                }
                Step::WrongId(byte) => match members.index_of(id(byte)) {
                    Some(index) if index != MemberIndex::SELF => members.wrong_id(index, now),
                    Some(_) | None => {}
                },
            }
            prop_assert!(members.own().id == id(5));
            prop_assert!(members.deadline(TIMEOUT) >= Micros(0));
            let file = members.nodes_file(now, TIMEOUT, ResetEpoch::NONE);
            prop_assert_eq!(NodesFile::parse(&file.write()), Ok(file.clone()));
            let mut listener = Members::new(announcement(200), 1, now);
            for entry in members.gossip() {
                let mut bytes = Vec::new();
                entry.encode(&mut bytes);
                prop_assert_eq!(GossipEntry::decode(&mut &bytes[..]), Ok(Some(entry)));
                let news = listener.merge_gossip(entry, now);
                prop_assert!(matches!(news, News::Added(_) | News::Barred), "{news:?}");
            }
            prop_assert_eq!(listener.peers().count(), members.peers().count() + 1);
        }
    }
}
