//! A file tree as the kernel's initramfs takes it: entries in, bytes of a cpio archive ("newc") out.
//!
//! The format is in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Archives may follow each other in
//! one file, each with its own trailer.

/// An archive that grows by entries.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

impl Archive {
    /// A directory, rwxr-xr-x. Its parent must come before it.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    /// A file with these permissions.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, FILE | mode, content);
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.entry(path, LINK | 0o777, to.as_bytes());
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(content.len()).expect("files of an initramfs are small");
        let name = u32::try_from(path.len() + 1).expect("names are short");
        // inode, mode, uid, gid, links, mtime, size, device (2), device of a node (2), length of the name, checksum
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_name_and_content_are_aligned() {
        let mut archive = Archive::default();
        archive.file("ab", 0o644, b"hello");
        let bytes = archive.finish();
        let header = "07070100000001000081A400000000000000000000000100000000000000050000000000000000000000000000000000000003\
            00000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..112], b"ab");
        // 110 + 3 bytes, filled to 116; 5 bytes of content, filled to 124.
        assert_eq!(&bytes[112..124], b"\0\0\0\0hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes[130..].windows(10).any(|w| w == b"TRAILER!!!"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn kinds_are_in_the_mode() {
        let mut archive = Archive::default();
        archive.directory("d");
        archive.link("l", "d");
        let text = String::from_utf8(archive.finish()).expect("ASCII");
        assert!(text.contains("000041ED") && text.contains("0000A1FF"), "{text}");
    }
}
