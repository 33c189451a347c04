//! What clients that take patches are told, and that they make the payloads of it that were published.

use bytes::Bytes;
use proptest::{collection, option, prelude::*};
use roomcast_shared::{
    delta,
    protocol::{Delta, Encoding, Envelope, Form, reply::Reply},
    publication::{ClientInfo, Publication},
};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

fn publication(data: impl Into<Bytes>) -> Publication {
    Publication { data: data.into(), offset: 7, ..Publication::default() }
}

/// What a client remembers, as the SDKs of the protocol do it.
#[derive(Default)]
struct Client(Vec<u8>);

impl Client {
    fn hear(&mut self, encoding: Encoding, told: &Publication) -> Vec<u8> {
        let data = match encoding {
            Encoding::Json => serde_json::from_slice::<String>(&told.data).expect("data is a string").into_bytes(),
            Encoding::Protobuf => told.data.to_vec(),
        };
        self.0 = if told.delta { delta::apply(&self.0, &data).expect("the patch fits") } else { data };
        self.0.clone()
    }
}

/// Publications one after the other in which much stays as it was.
fn history() -> impl Strategy<Value = Vec<Publication>> {
    let data = (any::<String>(), "[a-z→😀]{0,40}", any::<u8>()).prop_map(|(any, text, number)| {
        let any = serde_json::Value::from(any);
        format!(
            "\n{{\"scores\":[1,2,3,4,5,{number},6,7,8,9],\r\n\"text\":\"{text} is all that is new→\",\"any\":{any}}} "
        )
    });
    let info = any::<String>().prop_map(|user| ClientInfo { user, ..ClientInfo::default() });
    let tags = collection::btree_map("[a-z]", any::<String>(), 0..2);
    let publication = (data, option::of(info), any::<u64>(), tags, any::<bool>())
        .prop_map(|(data, info, offset, tags, delta)| Publication { data: data.into(), info, offset, tags, delta });
    collection::vec(publication, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_that_takes_patches_hears_what_was_published(history in history(), room: String) {
        for encoding in ENCODINGS {
            let (mut missed, mut live) = (Client::default(), Client::default());
            let told = encoding.told_in_a_row(&history).unwrap();
            prop_assert_eq!(told.len(), history.len());
            let mut before: Option<&Publication> = None;
            for (publication, told) in history.iter().zip(&told) {
                prop_assert_eq!(&missed.hear(encoding, told), &publication.data);
                prop_assert_eq!((told.offset, &told.info, &told.tags), (publication.offset, &publication.info, &publication.tags));

                let patch = before.and_then(|before| delta::patch(&before.data, &publication.data));
                let form = Form { delta: Some(patch.as_deref().map_or(Delta::Full, Delta::Patch)), ..Form::default() };
                let mut frame = Vec::new();
                encoding.encode_publication_as(form, &room, publication, &mut frame).unwrap();
                let reply: Reply = encoding.replies(&frame).next().unwrap().unwrap();
                let pushed = reply.push.unwrap().publication.unwrap();
                prop_assert_eq!(&*pushed, told);
                prop_assert_eq!(&live.hear(encoding, &pushed), &publication.data);
                before = Some(publication);
            }
        }
    }
}

#[test]
fn payloads_and_patches_are_strings_in_json_and_bytes_in_protobuf() {
    let publication = publication(r#"{"a":"é"}"#);
    let form = |envelope, delta| Form { envelope, delta: Some(delta) };
    for (form, json, protobuf) in [
        (
            form(Envelope::Reply, Delta::Full),
            r#"{"push":{"channel":"r","pub":{"data":"{\"a\":\"é\"}","offset":7}}}"#,
            &b"\x15\x22\x13\x12\x01r\x22\x0e\x22\x0a{\"a\":\"\xc3\xa9\"}\x30\x07"[..],
        ),
        (
            form(Envelope::Bare, Delta::Patch(b"A\n5@0,\"")),
            r#"{"channel":"r","pub":{"data":"A\n5@0,\"","offset":7,"delta":true}}"#,
            b"\x12\x12\x01r\x22\x0d\x22\x07A\n5@0,\"\x30\x07\x40\x01",
        ),
    ] {
        let mut out = Vec::new();
        Encoding::Json.encode_publication_as(form, "r", &publication, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), json);
        let mut out = Vec::new();
        Encoding::Protobuf.encode_publication_as(form, "r", &publication, &mut out).unwrap();
        assert_eq!(out, protobuf);
    }
}

#[test]
fn a_patch_that_is_no_text_is_not_told_in_json() {
    let publication = publication("[1]");
    let patch = Delta::Patch(b"3\n1:\xc3");
    let told = Encoding::Json.told(patch, &publication).unwrap();
    assert_eq!((&told.data[..], told.delta), (&br#""[1]""#[..], false));
    assert!(Encoding::Protobuf.told(patch, &publication).unwrap().delta);
}

#[test]
fn what_was_a_patch_before_is_not_told_as_one_now() {
    let publication = Publication { delta: true, ..publication("1") };
    for encoding in ENCODINGS {
        assert!(!encoding.told(Delta::Full, &publication).unwrap().delta);
    }
}

#[test]
fn payloads_that_are_no_json_are_not_told_to_json_clients_as_patches_either() {
    for data in ["x", "{", "1 2", "\u{0}"] {
        let publication = publication(data);
        for delta in [Delta::Full, Delta::Patch(b"0\n0;")] {
            let mut out = b"before".to_vec();
            let form = Form { delta: Some(delta), ..Form::default() };
            assert!(Encoding::Json.encode_publication_as(form, "r", &publication, &mut out).is_err(), "{data}");
            assert_eq!(out, b"before");
            assert!(Encoding::Protobuf.encode_publication_as(form, "r", &publication, &mut out).is_ok());
        }
        assert!(Encoding::Json.told_in_a_row(&[publication]).is_err());
    }
    let empty = Encoding::Json.told(Delta::Full, &publication("")).unwrap();
    assert_eq!(empty.data, r#""""#);
}
