//! Which command of a client comes to which file, and what its answers have in common. What a command means is in the file
//! that bears its name.

use roomcast_shared::protocol::{
    code::{Disconnect, ErrorCode},
    command::Command,
    reply::Reply,
};

use super::{Done, Replies, Session, Stage, Step};

impl Session {
    pub(super) fn run_backlog(&mut self, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        match self.backlog.take() {
            Some(rest) => self.run(&rest, replies),
            None => Ok(()),
        }
    }

    pub(super) fn run(&mut self, frame: &[u8], replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        let mut commands = self.wire.encoding().commands(frame);
        loop {
            let rest = commands.rest();
            let Some(command) = commands.next() else { return Ok(()) };
            let command = command.map_err(|error| self.malformed(&error))?;
            match self.begin(command, replies)? {
                Step::Done => {}
                Step::Drop => return Ok(()),
                Step::Wait => {
                    self.backlog = Some(rest.into());
                    return Ok(());
                }
            }
        }
    }

    pub(super) fn malformed(&self, error: &dyn std::fmt::Display) -> Disconnect {
        tracing::debug!(address = %self.address, "malformed command: {error}");
        Disconnect::BAD_REQUEST
    }

    /// Begins a command, where the client may say anything yet and not too much.
    fn begin(&mut self, command: Command, replies: &mut Replies<'_>) -> Result<Step, Disconnect> {
        let id = command.id;
        match &self.stage {
            Stage::Connected(_) if command.connect.is_some() => return Err(self.refuse("a second connect command")),
            Stage::Connected(_) => {}
            Stage::Asking | Stage::Connecting(_) => return Ok(Step::Wait),
            // The client was told; what it had sent by then is void, and the stale timer ends it.
            Stage::Refused => return Ok(Step::Drop),
            Stage::Fresh => {
                return match command.connect {
                    Some(request) if id != 0 => self.connect(id, &request, replies),
                    _ => Err(self.refuse("the first command has to be connect")),
                };
            }
        }
        if id == 0 && command.send.is_none() {
            self.clock.pong()?;
            return Ok(Step::Done);
        }
        if !std::mem::take(&mut self.counted)
            && let Some(method) = self.limited(&command)
        {
            return self.refused(id, method, ErrorCode::TOO_MANY_REQUESTS, replies);
        }
        let step = self.perform(command, replies);
        self.counted = matches!(step, Ok(Step::Wait));
        step
    }

    /// The table of commands.
    fn perform(&mut self, command: Command, replies: &mut Replies<'_>) -> Result<Step, Disconnect> {
        let id = command.id;
        if let Some(request) = command.subscribe {
            self.subscribe(id, *request, replies)
        } else if let Some(request) = command.publish {
            self.publish(id, *request, replies)
        } else if let Some(request) = command.unsubscribe {
            self.unsubscribe(id, &request, replies)
        } else if let Some(request) = command.refresh {
            self.refresh(id, &request, replies)
        } else if let Some(request) = command.presence {
            self.presence(id, request, replies)
        } else if let Some(request) = command.presence_stats {
            self.presence_stats(id, &request, replies)
        } else if let Some(request) = command.history {
            self.history(id, *request, replies)
        } else if let Some(request) = command.sub_refresh {
            self.sub_refresh(id, &request, replies)
        } else if let Some(request) = command.rpc {
            self.rpc(id, *request, replies)
        } else if command.send.is_some() {
            self.context.commands.count("send", "disconnect");
            Err(Disconnect::NOT_AVAILABLE)
        } else {
            Err(self.refuse("no command this server knows"))
        }
    }

    pub(super) fn refuse(&self, what: &str) -> Disconnect {
        tracing::debug!(address = %self.address, "bad request: {what}");
        self.context.commands.count("other", "disconnect");
        Disconnect::BAD_REQUEST
    }

    /// Answers a command with an error.
    pub(super) fn refused(
        &self,
        id: u32,
        method: &'static str,
        code: ErrorCode,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        self.context.commands.count(method, "error");
        replies.put(&Reply { id, error: Some(code.into()), ..Reply::default() })?;
        Ok(Step::Done)
    }

    pub(super) fn succeeded(
        &self,
        method: &'static str,
        reply: &Reply,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        self.context.commands.count(method, "ok");
        replies.put(reply)?;
        Ok(Step::Done)
    }

    /// Answers a command that had to wait.
    pub(super) fn finish(&mut self, done: Done, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        match done {
            Done::Then(rest) => rest(self, replies),
            Done::Subscribed { id, entered } => self.subscribed(id, entered, replies),
            Done::Published { id, result } => self.published(id, &result, replies),
            Done::Read { id, since, result } => self.read(id, since.as_ref(), result, replies),
            Done::CaughtUp { id, room } => self.leave(id, &room, replies),
            Done::Left { id } => self.left(id, replies),
        }
        .map(|_| ())
    }
}
