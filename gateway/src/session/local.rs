//! The sessions of this node as other nodes and the server API reach them: commands find the sessions they mean, which are
//! told and do it themselves. Knows no API and no node.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use roomcast_shared::{
    claims::{Overrides, Switch},
    protocol::{
        Encoding,
        code::{Disconnect, Unsubscribe},
    },
};
use uuid::Uuid;

use super::Context;
use crate::{
    hub::{Connected, Identity, Mail, Outbox, Refresh, Since, Subscribe},
    node::cluster::{self, Command, ConnectionInfo, Filter, Local, Target, Upstreamed},
};

/// Sessions looked at in one go.
const PAGE: usize = 1_000;

impl Local for Context {
    fn execute(&self, command: &Command) {
        match command {
            Command::Subscribe(command) => {
                let mail = Mail::Subscribe(Box::new(subscribe(command)));
                self.tell(command.target.as_ref(), &mail);
            }
            Command::Unsubscribe(command) => {
                let how = unsubscribe(command.code, &command.reason);
                let mail = Mail::Unsubscribe { room: Arc::from(command.room.as_str()), how };
                self.tell(command.target.as_ref(), &mail);
            }
            Command::Refresh(command) => {
                let cluster::Refresh { expired, expire_at, info, .. } = command.clone();
                let mail = Mail::Refresh(Box::new(Refresh { expired, expire_at: Some(expire_at), info }));
                self.tell(command.target.as_ref(), &mail);
            }
            Command::Disconnect(command) => {
                let how = disconnect(command.code, &command.reason);
                for (identity, outbox) in self.meant(command.target.as_ref()) {
                    let stays = command.whitelist.iter().any(|client| *client == identity.client.to_string());
                    if !stays {
                        outbox.close(how.clone());
                    }
                }
            }
        }
    }

    fn upstream(&self, session: &str, data: Bytes) -> Upstreamed {
        Self::upstream(self, session, data)
    }

    fn connections(&self, filter: &Filter, after: &str, limit: usize) -> Vec<ConnectionInfo> {
        let (after, sessions) = (Uuid::parse_str(after).ok(), &self.node.hub().sessions);
        let mut found: Vec<Connected> = match (&filter.client, &filter.user) {
            (Some(client), _) => {
                Uuid::parse_str(client).ok().and_then(|id| sessions.by_client(id)).into_iter().collect()
            }
            (None, Some(user)) => sessions.of_user(user),
            (None, None) => self.everybody_here(),
        };
        found.retain(|(identity, _)| {
            after.is_none_or(|after| identity.client > after)
                && filter.user.as_ref().is_none_or(|user| *identity.user == **user)
        });
        let rooms = self.node.hub().rooms();
        if let Some(name) = &filter.room {
            let inside = rooms.iter().find(|room| **room.name() == **name).map(|room| room.outboxes());
            let inside: HashSet<_> = inside.iter().flatten().map(place).collect();
            found.retain(|(_, outbox)| inside.contains(&place(outbox)));
        }
        found.sort_unstable_by_key(|(identity, _)| identity.client);
        found.truncate(limit);
        let mut told: HashMap<_, _> =
            found.iter().map(|(identity, outbox)| (place(outbox), connection(identity))).collect();
        // A session's rooms are its own matter, so that they are looked for from the other side.
        for room in rooms {
            for outbox in room.outboxes() {
                if let Some(connection) = told.get_mut(&place(&outbox)) {
                    connection.rooms.push(room.name().to_string());
                }
            }
        }
        found.iter().filter_map(|(_, outbox)| told.remove(&place(outbox))).collect()
    }
}

impl Context {
    /// The sessions a command means.
    fn meant(&self, target: Option<&Target>) -> Vec<Connected> {
        let Some(Target { user, client, session }) = target else { return Vec::new() };
        let sessions = &self.node.hub().sessions;
        let named = [
            client.as_ref().map(|client| Uuid::parse_str(client).ok()),
            session.as_ref().map(|session| self.names.client(session).or_else(|| Uuid::parse_str(session).ok())),
        ];
        let mut found: Vec<Connected> = match (named.iter().flatten().next(), user) {
            (Some(id), _) => id.and_then(|id| sessions.by_client(id)).into_iter().collect(),
            (None, Some(user)) => sessions.of_user(user),
            (None, None) => Vec::new(),
        };
        found.retain(|(identity, _)| {
            named.iter().flatten().all(|id| *id == Some(identity.client))
                && user.as_ref().is_none_or(|user| *identity.user == **user)
        });
        found
    }

    fn tell(&self, target: Option<&Target>, mail: &Mail) {
        for (_, outbox) in self.meant(target) {
            if !outbox.tell(mail.clone()) {
                // Nobody hears that it was not told: it comes back, and whoever speaks to it can do so again.
                outbox.close(Disconnect::FORCE_RECONNECT);
            }
        }
    }

    fn everybody_here(&self) -> Vec<Connected> {
        let sessions = &self.node.hub().sessions;
        let mut all: Vec<Connected> = Vec::with_capacity(sessions.connected());
        loop {
            let page = sessions.page(all.last().map(|(identity, _)| identity.client), PAGE);
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }
}

/// Tells one outbox from another.
fn place(outbox: &Arc<Outbox>) -> usize {
    Arc::as_ptr(outbox).cast::<()>().addr()
}

fn connection(identity: &Identity) -> ConnectionInfo {
    let (app_name, app_version) = identity.agent.split_once('/').unwrap_or((&identity.agent, ""));
    ConnectionInfo {
        client: identity.client.to_string(),
        user: identity.user.to_string(),
        transport: identity.wire.transport().to_owned(),
        protocol: match identity.wire.encoding() {
            Encoding::Json => "json",
            Encoding::Protobuf => "protobuf",
        }
        .to_owned(),
        app_name: app_name.to_owned(),
        app_version: app_version.to_owned(),
        connected_at_ms: i64::try_from(identity.since.saturating_mul(1_000)).unwrap_or(i64::MAX),
        info: identity.info.clone(),
        ..ConnectionInfo::default()
    }
}

fn subscribe(command: &cluster::Subscribe) -> Subscribe {
    let cluster::Subscribe { room, info, data, expire_at, since, overrides, .. } = command.clone();
    let switch = |value: Option<bool>| value.map(|value| Switch { value });
    let said = overrides.unwrap_or_default();
    let since = since.map(|since| Since { offset: since.offset, epoch: since.epoch.into() });
    Subscribe {
        room,
        info,
        data,
        recover_since: since,
        expire_at,
        overrides: Overrides {
            presence: switch(said.presence),
            join_leave: switch(said.join_leave),
            force_push_join_leave: switch(said.force_push_join_leave),
            force_recovery: switch(said.force_recovery),
            force_positioning: switch(said.force_positioning),
        },
    }
}

/// The code as the protocol spells it, or one that may be chosen; otherwise what is said where nothing is chosen.
fn unsubscribe(code: u32, reason: &str) -> Unsubscribe {
    let known = Unsubscribe::ALL.iter().find(|known| known.code == code).cloned();
    known.or_else(|| Unsubscribe::custom(code, reason.to_owned()).ok()).unwrap_or(Unsubscribe::SERVER)
}

fn disconnect(code: u32, reason: &str) -> Disconnect {
    let known = Disconnect::ALL.iter().find(|known| u32::from(known.code) == code).cloned();
    let custom = || Disconnect::custom(u16::try_from(code).ok()?, reason.to_owned()).ok();
    known.or_else(custom).unwrap_or(Disconnect::FORCE_DISCONNECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_nobody_may_choose_become_the_usual_ones() {
        assert_eq!(unsubscribe(2500, ""), Unsubscribe::INSUFFICIENT);
        assert_eq!(unsubscribe(0, ""), Unsubscribe::SERVER);
        assert_eq!(unsubscribe(2100, "moved").reason, "moved");
        assert_eq!(unsubscribe(2100, ""), Unsubscribe::SERVER);
        assert_eq!(disconnect(3000, "x"), Disconnect::CONNECTION_CLOSED);
        assert_eq!(disconnect(0, ""), Disconnect::FORCE_DISCONNECT);
        assert_eq!(disconnect(4501, "bye").code, 4501);
        assert_eq!(disconnect(70_000, "bye"), Disconnect::FORCE_DISCONNECT);
    }
}
