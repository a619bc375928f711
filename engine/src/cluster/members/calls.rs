//! Whom a node calls, its links as far as membership is concerned, and meetings with strangers.

use super::{DialTarget, Members};
use crate::cluster::dialing::HIGHER_ID_WAIT;
use crate::cluster::meets::{FailedMeet, MAX_MEETS, Meet, TooManyMeets};
use crate::ids::{MemberIndex, NodeId};
use crate::time::Micros;
use std::net::{IpAddr, SocketAddr};

impl Members {
    /// Whom to call now; each counts as under way until `linked`, `dial_failed` or `unlinked`.
    pub fn dials_due(&mut self, now: Micros) -> Vec<(DialTarget, SocketAddr)> {
        let mut due = Vec::new();
        for &index in self.live.values() {
            let Some(member) = &mut self.slots[usize::from(index.0)] else { continue };
            if index != MemberIndex::SELF
                && member.dialing.deadline() <= now
                && !member.is_noaddr
                && let Some(bus) = member.announced.bus()
            {
                member.dialing.begin();
                due.push((DialTarget::Member(index), bus));
            }
        }
        for meet in self.meets.iter_mut().filter(|meet| meet.dialing.deadline() <= now) {
            meet.dialing.begin();
            due.push((DialTarget::Meet(meet.id), meet.bus));
        }
        due
    }

    /// When `dials_due` or `expire_meets` has something to do next.
    pub fn deadline(&self, timeout: Micros) -> Micros {
        let members = self.live.values().map(|index| self.slot(*index));
        let callable = members.filter(|member| !member.is_noaddr && member.announced.bus().is_some());
        let meets = self.meets.iter().map(|meet| meet.dialing.deadline().min(meet.end(timeout)));
        callable.map(|member| member.dialing.deadline()).chain(meets).min().unwrap_or(Micros::NEVER)
    }

    /// A call was not answered, or ended before the Hellos were exchanged.
    pub fn dial_failed(&mut self, target: DialTarget, reason: &str, now: Micros) {
        let jitter = &mut self.jitter;
        match target {
            DialTarget::Member(index) => {
                if let Some(member) = &mut self.slots[usize::from(index.0)] {
                    member.dialing.failed(now, jitter);
                }
            }
            DialTarget::Meet(id) => {
                if let Some(meet) = self.meets.iter_mut().find(|meet| meet.id == id) {
                    meet.failed(reason, now, jitter);
                }
            }
        }
    }

    /// Somebody with another id has answered at the member's address. It is called again when it announces another.
    pub fn wrong_id(&mut self, index: MemberIndex, now: Micros) {
        let jitter = &mut self.jitter;
        if let Some(member) = &mut self.slots[usize::from(index.0)] {
            member.is_noaddr = true;
            member.dialing.failed(now, jitter);
            self.revision += 1;
        }
    }

    /// There is a link to that member, from this address, which fills a gap in what the member `announces` itself: it has never been
    /// known, or is another now and is called in vain.
    pub fn linked(
        &mut self,
        index: MemberIndex,
        from: Option<IpAddr>,
        announces: Option<IpAddr>,
        now: Micros,
    ) {
        let member = self.slot_mut(index);
        let is_called_in_vain = announces.is_none() && member.dialing.failures() > 0;
        member.dialing.linked(now);
        let is_gap = member.announced.ip.is_none() || member.is_noaddr || is_called_in_vain;
        if let Some(ip) = from.filter(|_| is_gap) {
            member.announced.ip = Some(ip.to_canonical());
            self.revision += 1;
        }
        self.slot_mut(index).is_noaddr = false;
    }

    /// The last link to that member has ended.
    pub fn unlinked(&mut self, index: MemberIndex, now: Micros) {
        let wait = self.wait_for(self.slot(index).announced.id);
        let jitter = &mut self.jitter;
        if let Some(member) = &mut self.slots[usize::from(index.0)] {
            member.dialing.unlinked(now, wait, jitter);
            member.unlinked = Some(now);
        }
    }

    /// Whether there is a link to that member.
    pub fn has_link(&self, index: MemberIndex) -> bool {
        self.slot(index).dialing.has_link()
    }

    /// How long to leave the first call to the other.
    pub(super) fn wait_for(&self, id: NodeId) -> Micros {
        if self.own().id < id { Micros(0) } else { HIGHER_ID_WAIT }
    }

    // ---- Meetings ----

    /// Begins to meet whoever is at that bus address; false if that is under way already.
    ///
    /// # Errors
    /// `TooManyMeets`; nothing has changed.
    pub fn meet(&mut self, bus: SocketAddr, port: u16, now: Micros) -> Result<bool, TooManyMeets> {
        if self.meets.iter().any(|meet| meet.bus == bus) {
            return Ok(false);
        }
        if self.meets.len() >= MAX_MEETS {
            return Err(TooManyMeets);
        }
        self.meets.push(Meet::new(bus, port, now, &mut self.jitter));
        Ok(true)
    }

    /// The meeting has been answered by a member, or has failed for good; the failure is given back for the log, as a warning.
    pub fn end_meet(&mut self, id: NodeId, outcome: Result<(), &str>, now: Micros) -> Option<FailedMeet> {
        let position = self.meets.iter().position(|meet| meet.id == id)?;
        let mut meet = self.meets.remove(position);
        let reason = outcome.err()?;
        self.meets_failed += 1;
        meet.failed(reason, now, &mut self.jitter);
        Some(meet.give_up(now))
    }

    /// Gives up what has been tried for the node timeout. The caller logs it, as warnings.
    pub fn expire_meets(&mut self, now: Micros, timeout: Micros) -> Vec<FailedMeet> {
        let (ended, rest) = std::mem::take(&mut self.meets).into_iter().partition(|m| m.end(timeout) <= now);
        self.meets = rest;
        let ended: Vec<Meet> = ended;
        self.meets_failed += ended.len() as u64;
        ended.into_iter().map(|meet| meet.give_up(now)).collect()
    }
}
