//! What Redis sends: replies of a subscribed connection, and the envelopes in them.

use roomcast::broker::redis::fuzzing::{End, Said, open, read, seal, write};

use crate::{ITERATIONS, memory::taken};

/// However the bytes are cut, the same is said and it ends alike; what is said is said again when it is written; and what is
/// missing is no more than the longest string that is taken. The first byte chooses the cut.
#[test]
fn replies() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let Some((&cut, bytes)) = input.split_first() else { return };
        let ((said, end), memory) = taken(|| read(&[bytes]));
        assert!(memory <= 64 * bytes.len() as u64 + 1024, "{memory} bytes for {}", bytes.len());
        let (begin, rest) = bytes.split_at(usize::from(cut).min(bytes.len()));
        let (again, its_end) = read(&[begin, rest]);
        assert_eq!((&said, &end), (&again, &its_end));
        match end {
            End::Missing(bytes) => assert!((1..=(64 << 20) + 2).contains(&bytes), "{bytes}"),
            End::Malformed(why) => assert!(why.len() > 60, "{why}"),
        }
        let written: Vec<u8> = said.iter().flat_map(written).collect();
        assert_eq!(read(&[&written]), (said, End::Missing(1)));
    });
}

fn written(said: &Said) -> Vec<u8> {
    let confirmed = |kind: &[u8], channel: &[u8]| {
        let words = write(&[kind, channel]);
        [b"*3", &words[2..], b":7\r\n"].concat()
    };
    match said {
        Said::Message(channel, payload) => write(&[b"message", channel, payload]),
        Said::Subscribed(channel) => confirmed(b"subscribe", channel),
        Said::Unsubscribed(channel) => confirmed(b"unsubscribe", channel),
        Said::Done => b"+OK\r\n".to_vec(),
        Said::Error(reason) => format!("-{reason}\r\n").into_bytes(),
    }
}

/// An envelope that opens is opened again as it is sealed, and takes memory in proportion to its bytes.
#[test]
fn envelopes() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let bytes = input.to_vec().into();
        let (opened, memory) = taken(|| open(bytes));
        assert!(memory <= 128 * input.len() as u64 + 1024, "{memory} bytes for {}", input.len());
        match opened {
            Ok(all) => assert_eq!(open(seal(&all).into()), Ok(all)),
            Err(why) => assert!(!why.is_empty()),
        }
    });
}
