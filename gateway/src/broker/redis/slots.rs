//! Where names lie: the slots of a Redis Cluster, and the place of a room among independent servers. Knows neither names nor
//! servers.
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>)

use xxhash_rust::xxh3::xxh3_64;

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of a text, given in two parts.
pub(super) fn slot(parts: [&[u8]; 2]) -> u16 {
    parts.iter().flat_map(|part| part.iter()).fold(0, |crc, byte| step(crc, *byte)) % SLOTS
}

/// CRC-16/XMODEM of one byte more.
fn step(crc: u16, byte: u8) -> u16 {
    (crc << 8) ^ TABLE[usize::from(crc >> 8 ^ u16::from(byte))]
}

static TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "a byte, shifted by one")]
        let (mut crc, mut bit) = ((byte << 8) as u16, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// Rooms that share a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// What their names have between the braces.
    pub(super) tag: String,
    /// The slot that follows from it.
    pub(super) slot: u16,
}

impl Partition {
    /// That of a room.
    pub(super) fn of<'a>(partitions: &'a [Partition], room: &str) -> &'a Self {
        let place = xxh3_64(room.as_bytes()) % partitions.len() as u64;
        &partitions[usize::try_from(place).expect("less than a length")]
    }
}

/// So many partitions, evenly over the slots, so that masters with equal shares of the slots get equal shares of them. The
/// tag of each is the first number whose slot is in its part.
pub(super) fn partitions(count: u32) -> Vec<Partition> {
    let count = count.clamp(1, u32::from(SLOTS)) as usize;
    let mut found = vec![None; count];
    let mut missing = count;
    for tag in (0_u32..).map(|number| number.to_string()) {
        let slot = slot([tag.as_bytes(), b""]);
        let place = &mut found[usize::from(slot) * count / usize::from(SLOTS)];
        if place.is_none() {
            *place = Some(Partition { tag, slot });
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    found.into_iter().flatten().collect()
}

/// Which of so many servers a room is on, by its name alone: where one more server stands at the end of the list, each of
/// the others keeps all rooms but those that go to the new one, which are its even share.
/// (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014)
pub(super) fn server(room: &str, servers: u16) -> u16 {
    let (mut key, mut place, mut next) = (xxh3_64(room.as_bytes()), 0, 0);
    while next < i64::from(servers) {
        place = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "31 bits, as the paper has it"
        )]
        let jump = ((place + 1) as f64 * ((1_i64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
        next = jump;
    }
    u16::try_from(place).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Partition, SLOTS, partitions, server, slot};

    /// As the specification and `CLUSTER KEYSLOT` have it.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot([b"123456789", b""]), 0x31c3);
        assert_eq!(slot([b"12345", b"6789"]), 0x31c3);
        assert_eq!(slot([b"foo", b""]), 12_182);
        assert_eq!(slot([b"", b""]), 0);
    }

    #[test]
    fn partitions_are_spread_evenly_over_the_slots() {
        for count in [1, 3, 16, 500, 4096] {
            let partitions = partitions(count);
            assert_eq!(partitions.len(), count as usize);
            for (place, partition) in partitions.iter().enumerate() {
                assert_eq!(slot([partition.tag.as_bytes(), b""]), partition.slot);
                assert_eq!(usize::from(partition.slot) * count as usize / usize::from(SLOTS), place);
            }
        }
    }

    #[test]
    fn one_more_server_takes_an_even_share_and_moves_nothing_else() {
        let rooms: Vec<String> = (0..20_000).map(|room| format!("room:{room}")).collect();
        for servers in 1..10 {
            let mut moved = 0;
            let mut counts = HashMap::new();
            for room in &rooms {
                let (before, after) = (server(room, servers), server(room, servers + 1));
                assert!(before < servers && (after == before || after == servers));
                moved += usize::from(after != before);
                *counts.entry(after).or_insert(0) += 1;
            }
            let share = rooms.len() / usize::from(servers + 1);
            assert!(moved.abs_diff(share) < share / 5, "{moved} of {share}");
            assert!(counts.values().all(|count: &usize| count.abs_diff(share) < share / 5), "{counts:?}");
        }
    }

    /// What one node reckons another has to reckon as well, whatever version it runs.
    #[test]
    fn places_never_change() {
        let places: Vec<u16> = ["", "a", "news", "chat:1"].iter().map(|room| server(room, 5)).collect();
        assert_eq!(places, [0, 1, 1, 4]);
        let tags: Vec<_> = partitions(4).into_iter().map(|partition| partition.tag).collect();
        assert_eq!(tags, ["3", "2", "1", "0"]);
        let places: Vec<_> =
            ["", "a", "news", "chat:1"].map(|room| Partition::of(&partitions(4), room).tag.clone()).into();
        assert_eq!(places, ["1", "0", "3", "0"]);
    }
}
