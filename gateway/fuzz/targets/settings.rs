//! Settings of somebody who mistypes.

use std::{ffi::OsString, fs};

use roomcast::config::{self, Flag, Source, Sources};

use crate::{ITERATIONS, memory::taken};

/// Whatever is wrong with a settings file, a variable or a flag is said with its place: a line that is there, the variable or the
/// flag. What is read is read alike the next time. The first line is a variable or a flag, the others are the file.
#[test]
fn sources() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roomcast.toml");
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        // Such a setting opens a file, which may be one that never ends.
        if input.to_ascii_lowercase().windows(5).any(|part| part == b"_file") {
            return;
        }
        let (first, file) = input.split_at(input.iter().position(|byte| *byte == b'\n').unwrap_or(0));
        fs::write(&path, file).expect("a settings file");
        let mut sources = Sources { file: Some(path.clone()), ..Sources::default() };
        add(&mut sources, &String::from_utf8_lossy(first));

        let (loaded, memory) = taken(|| config::load(&sources, &[]));
        assert!(memory <= 4096 * (input.len() as u64 + 1) + (4 << 20), "{memory} bytes for {}", input.len());
        let again = config::load(&sources, &[]);
        match (loaded, again) {
            (Ok(loaded), Ok(again)) => {
                assert_eq!(loaded.warnings, again.warnings);
                assert_eq!(loaded.settings.changed_but_fixed(&again.settings), Vec::<String>::new());
            }
            (Err(faults), Err(again)) => {
                assert_eq!(faults.0, again.0);
                // A file of no lines at all has a first one; the end of the file may be a line of its own.
                let lines = file.split(|byte| *byte == b'\n').count();
                for fault in &faults.0 {
                    assert!(!fault.message.is_empty());
                    if let Source::File { line, .. } = fault.source {
                        assert!(line <= lines, "{fault}");
                        assert!(line > 0 || std::str::from_utf8(file).is_err(), "{fault}");
                    }
                }
            }
            (one, other) => panic!("once {one:?}, and then {other:?}"),
        }
    });
}

/// Takes `ROOMCAST_NAME=value` for a variable and `name=value` for a flag.
fn add(sources: &mut Sources, line: &str) {
    let Some((name, value)) = line.split_once('=') else { return };
    if name.starts_with(config::PREFIX) && name != config::FILE_VARIABLE {
        sources.environment.push((OsString::from(name), OsString::from(value)));
    } else {
        sources.flags.push(Flag { name: "--set".to_owned(), path: name.to_owned(), value: value.to_owned() });
    }
}
