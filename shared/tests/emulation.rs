//! Requests that stand alone in a body: commands for a session elsewhere, and the one word of a client that only listens.

use proptest::prelude::*;
use prost::Message;
use roomcast_shared::protocol::{DecodeError, Encoding, emulation::EmulationRequest};

fn request() -> impl Strategy<Value = EmulationRequest> {
    any::<(String, String, String)>().prop_map(|(node, session, data)| EmulationRequest {
        node,
        session,
        data: data.into(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commands_for_elsewhere_come_back_as_they_went(request in request()) {
        let json = serde_json::to_vec(&request).unwrap();
        prop_assert_eq!(&Encoding::Json.emulation_request(&json).unwrap(), &request);
        prop_assert_eq!(&Encoding::Protobuf.emulation_request(&request.encode_to_vec()).unwrap(), &request);
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let _ = (encoding.emulation_request(&body), encoding.connect_request(&body));
        }
    }
}

#[test]
fn commands_in_json_are_the_text_of_a_frame() {
    let body = br#"{"node":"n","session":"s","data":"{\"id\":2}\n{\"id\":3}","later":[1]}"#;
    let request = Encoding::Json.emulation_request(body).unwrap();
    assert_eq!((&*request.node, &*request.session), ("n", "s"));
    let ids: Vec<_> = Encoding::Json.commands(&request.data).map(|command| command.unwrap().id).collect();
    assert_eq!(ids, [2, 3]);
    assert_eq!(
        Encoding::Json.emulation_request(br#"{"node":null,"session":null,"data":null}"#),
        Ok(EmulationRequest::default())
    );
}

#[test]
fn commands_in_protobuf_are_bytes_under_the_numbers_of_the_protocol() {
    let request = EmulationRequest { node: "n".into(), session: "s".into(), data: b"\x02\x08\x07"[..].into() };
    let body = b"\x0a\x01n\x12\x01s\x1a\x03\x02\x08\x07";
    assert_eq!(request.encode_to_vec(), body);
    assert_eq!(Encoding::Protobuf.emulation_request(body), Ok(request));
}

#[test]
fn bodies_of_another_shape_are_refused() {
    for body in [r#"{"data":{"id":1}}"#, r#"{"data":[1]}"#, "[]", "1", r#"{"node":5}"#, r#"{"data":"\ud800"}"#] {
        let refused = Encoding::Json.emulation_request(body.as_bytes());
        assert!(matches!(refused, Err(DecodeError::Malformed { .. })), "{body}");
    }
    assert_eq!(Encoding::Json.emulation_request(b""), Err(DecodeError::Empty));
    let deep = format!(r#"{{"later":{}}}"#, "[".repeat(30_000));
    assert_eq!(Encoding::Json.emulation_request(deep.as_bytes()), Err(DecodeError::TooDeep));
    assert_eq!(Encoding::Json.connect_request(deep.as_bytes()), Err(DecodeError::TooDeep));
}

#[test]
fn a_connect_request_may_stand_alone() {
    let body = br#"{"token":"eyJ","data":{"a":1},"subs":{"a":{"recover":true,"offset":3}}}"#;
    let request = Encoding::Json.connect_request(body).unwrap();
    assert_eq!((&*request.token, &request.data[..], request.subs["a"].offset), ("eyJ", &br#"{"a":1}"#[..], 3));
    assert_eq!(Encoding::Protobuf.connect_request(&request.encode_to_vec()), Ok(request));
    assert!(matches!(Encoding::Json.connect_request(b"[]"), Err(DecodeError::Malformed { .. })));
}
