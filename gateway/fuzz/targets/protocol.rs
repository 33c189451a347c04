//! What clients say, and what they are told, in either encoding. Whatever is understood is understood alike as it is written
//! again; a command is never read to more memory than its bytes account for; and a complaint about JSON says where.

use roomcast_shared::{
    delta,
    filter::Filter,
    protocol::{DecodeError, Encoding, command::Command},
};

use crate::{ITERATIONS, memory::taken};

/// Most memory taken on the way for one byte: a list of nodes of a filter, of two bytes each in Protobuf, grows by doubling.
const PER_BYTE: u64 = 512;

#[test]
fn json_commands() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| commands(Encoding::Json, input));
}

#[test]
fn protobuf_commands() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| commands(Encoding::Protobuf, input));
}

fn commands(encoding: Encoding, frame: &[u8]) {
    // A session has one of them at a time.
    let ((), memory) = taken(|| encoding.commands(frame).for_each(drop));
    assert!(memory <= PER_BYTE * frame.len() as u64 + 4096, "{memory} bytes for {}", frame.len());
    let read: Vec<_> = encoding.commands(frame).collect();
    assert!(!read.is_empty(), "a frame says something, or is complained about");
    // A session stops after any command and goes on with the rest later.
    let mut one_by_one = Vec::new();
    let mut rest = frame;
    loop {
        let mut commands = encoding.commands(rest);
        one_by_one.extend(commands.next());
        rest = commands.rest();
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(read, one_by_one);
    let errors = read.iter().filter(|command| command.is_err()).count();
    assert!(errors == 0 || (errors == 1 && read.last().is_some_and(Result::is_err)), "nothing is read after an error");
    for command in read {
        match command {
            Ok(command) => said_again(encoding, command),
            Err(error) => complained(encoding, &error),
        }
    }
}

fn said_again(encoding: Encoding, command: Command) {
    if let Some(filter) = command.subscribe.as_ref().and_then(|subscribe| subscribe.tf.as_ref()) {
        let (read, memory) = taken(|| Filter::new(filter));
        assert!(memory <= 256 * 1024, "{memory} bytes");
        match read {
            // Rooms bring clients together whose filters are equal.
            Ok(read) => assert_eq!(Filter::new(filter).ok(), Some(read)),
            Err(why) => assert!(!why.to_string().is_empty()),
        }
    }
    let mut written = Vec::new();
    encoding.encode_command(&command, &mut written).expect("it was read from this encoding");
    assert_eq!(encoding.commands(&written).collect::<Vec<_>>(), [Ok(command)]);
}

fn complained(encoding: Encoding, error: &DecodeError) {
    let DecodeError::Malformed { detail } = error else { return };
    let says_where = encoding == Encoding::Protobuf || detail.contains(" column ");
    assert!(says_where && !detail.is_empty(), "{detail}");
}

/// The first byte chooses the encoding, also below.
fn chosen(input: &[u8]) -> Option<(Encoding, &[u8])> {
    let (choice, bytes) = input.split_first()?;
    Some((if choice & 1 == 0 { Encoding::Json } else { Encoding::Protobuf }, bytes))
}

/// What tools and the tests read.
#[test]
fn replies() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let Some((encoding, frame)) = chosen(input) else { return };
        for reply in encoding.replies(frame).map_while(Result::ok) {
            let mut written = Vec::new();
            encoding.encode_reply(&reply, &mut written).expect("it was read from this encoding");
            assert_eq!(encoding.replies(&written).collect::<Vec<_>>(), [Ok(reply)]);
        }
    });
}

/// Bodies that are one message.
#[test]
fn bodies() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let Some((encoding, body)) = chosen(input) else { return };
        let (read, memory) = taken(|| (encoding.emulation_request(body), encoding.connect_request(body)));
        assert!(memory <= 2 * PER_BYTE * body.len() as u64 + 8192, "{memory} bytes for {}", body.len());
        for error in [read.0.err(), read.1.err()].into_iter().flatten() {
            complained(encoding, &error);
        }
    });
}

/// A patch that is made leads from the one to the other; one that somebody else made takes no more memory than what it is
/// applied to and its own bytes account for. The first byte says where the input is cut in two.
#[test]
fn deltas() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let Some((&cut, bytes)) = input.split_first() else { return };
        let (base, other) = bytes.split_at(usize::from(cut).min(bytes.len()));
        assert_eq!(delta::apply(base, &delta::create(base, other)).as_deref(), Ok(other));
        let (applied, memory) = taken(|| delta::apply(base, other));
        let copies = other.len() as u64;
        assert!(memory <= 4 * (base.len() as u64 + 1) * (copies + 1) + 1024, "{memory} bytes, {applied:?}");
    });
}
