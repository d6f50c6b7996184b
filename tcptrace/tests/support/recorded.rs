//! Recordings that are kept.

use std::{fs, path::Path};

use tcptrace::{
    frame::{Frames, Header, fact},
    recording::{Item, Reader, Writer},
};
use tcptrace_common::record::Head;
use zerocopy::FromBytes;

/// Take out of a recording what is this host's and not the scene's: its names, whose build its kernel is, the paths of cgroups. What was
/// recorded of connections stays as it is.
pub fn without_this_host(file: &Path) {
    let bytes = fs::read(file).expect("the recording");
    let mut reader = Reader::new(&bytes[..]).expect("memory");
    let (mut frames, mut kept) = (Frames::default(), Frames::default());
    while let Item::Block(_) = reader.next(&mut frames).expect("a whole recording") {}
    let mut rest = frames.as_bytes();
    while let Ok((header, after)) = Header::read_from_prefix(rest) {
        let record = &after[..header.len as usize];
        rest = &after[record.len().next_multiple_of(8)..];
        let (head, body) = Head::read_from_prefix(record).expect("a head");
        match head.kind {
            fact::kind::START => {
                let start: fact::Start = serde_json::from_slice(body).expect("JSON");
                let kernel = start.kernel.split('-').next().unwrap_or_default().to_owned();
                let start = fact::Start { host: "host".to_owned(), boot_id: String::new(), kernel, ..start };
                kept.push_fact(head.kind, head.ts, &start);
            }
            fact::kind::CGROUP => {}
            _ => kept.push(header.cpu, record),
        }
    }
    let mut writer = Writer::create(file).expect("our directory");
    writer.write(kept.as_bytes()).and_then(|()| writer.finish(0)).expect("room for it");
}
