//! The forms that a publication takes for the kinds of clients of one room: those that ask and those that only listen,
//! those that take every payload whole and those that take patches. Knows no client, and not which form one gets.

use bytes::Bytes;

use super::{Encoding, NotJson, json, protobuf, whole};
use crate::{delta, publication::Publication};

/// What is around a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Envelope {
    /// A reply, for clients that ask as well.
    #[default]
    Reply,
    /// Nothing, for clients that only listen.
    Bare,
}

/// What a client that takes patches is told of a publication. Clients that speak JSON read either as a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delta<'a> {
    /// The payload.
    Full,
    /// What makes the payload of the one that the client was told last, as [`delta::patch`] gives it.
    Patch(&'a [u8]),
}

/// How one kind of client is told a publication. The default is that of most clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form<'a> {
    /// What is around it.
    pub envelope: Envelope,
    /// Set for a client that takes patches.
    pub delta: Option<Delta<'a>>,
}

impl Encoding {
    /// Appends the push of one publication as most clients are told it: the very bytes of
    /// [`encode_reply`](Self::encode_reply), without a [`Reply`](super::reply::Reply) to be made and its parts to be copied.
    ///
    /// # Errors
    /// A payload is no JSON and the encoding is: nothing is appended then. A JSON client of the room has to be closed as
    /// of an inappropriate protocol.
    pub fn encode_publication(self, room: &str, publication: &Publication, out: &mut Vec<u8>) -> Result<(), NotJson> {
        self.encode_as_it_is(Envelope::Reply, room, publication, out)
    }

    /// Appends the push of one publication in any form; bare ones have the very bytes of [`encode_push`](Self::encode_push).
    ///
    /// # Errors
    /// As [`encode_publication`](Self::encode_publication).
    pub fn encode_publication_as(
        self,
        form: Form<'_>,
        room: &str,
        publication: &Publication,
        out: &mut Vec<u8>,
    ) -> Result<(), NotJson> {
        match form.delta {
            None => self.encode_as_it_is(form.envelope, room, publication, out),
            Some(delta) => self.encode_as_it_is(form.envelope, room, &self.told(delta, publication)?, out),
        }
    }

    fn encode_as_it_is(
        self,
        envelope: Envelope,
        room: &str,
        publication: &Publication,
        out: &mut Vec<u8>,
    ) -> Result<(), NotJson> {
        match self {
            Self::Json => whole(out, |out| json::encode_publication(envelope, room, publication, out)),
            Self::Protobuf => {
                protobuf::encode_publication(envelope, room, publication, out);
                Ok(())
            }
        }
    }

    /// A publication as a client that takes patches reads it, such as one among those that it missed.
    ///
    /// A patch that is no text is not told to a client that speaks JSON: it gets the payload.
    ///
    /// # Errors
    /// The payload is no JSON and the encoding is.
    pub fn told(self, delta: Delta<'_>, publication: &Publication) -> Result<Publication, NotJson> {
        let (data, is_patch) = match self {
            Self::Protobuf => match delta {
                Delta::Full => (publication.data.clone(), false),
                Delta::Patch(patch) => (Bytes::copy_from_slice(patch), true),
            },
            Self::Json => {
                let payload = if publication.data.is_empty() { "" } else { json::checked(&publication.data)? };
                match delta {
                    Delta::Patch(patch) if let Ok(patch) = str::from_utf8(patch) => (json::string(patch), true),
                    _ => (json::string(payload), false),
                }
            }
        };
        Ok(Publication { data, delta: is_patch, ..publication.clone() })
    }

    /// Publications that a client which takes patches missed, in the order they were published: the first whole, those
    /// behind it as patches to the one before where that is shorter.
    ///
    /// # Errors
    /// As [`told`](Self::told).
    pub fn told_in_a_row(self, publications: &[Publication]) -> Result<Vec<Publication>, NotJson> {
        let mut before: Option<&Publication> = None;
        let mut told = Vec::with_capacity(publications.len());
        for publication in publications {
            let patch = before.and_then(|before| delta::patch(&before.data, &publication.data));
            told.push(self.told(patch.as_deref().map_or(Delta::Full, Delta::Patch), publication)?);
            before = Some(publication);
        }
        Ok(told)
    }
}
