//! Executable mappings of a process: `/proc/PID/maps` in, which file is where out.

use std::{fs, io};

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Behind the last address.
    pub end: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// Inode number of the file; 0: it is of no file.
    pub inode: u64,
    /// Path as the process sees it, `[vdso]` and the like, or nothing.
    pub path: String,
}

/// Those of process `pid`, by their addresses.
///
/// # Errors
/// The process is gone, or may not be looked at.
pub fn executable(pid: u32) -> io::Result<Vec<Mapping>> {
    let text = fs::read(format!("/proc/{pid}/maps"))?;
    Ok(parse(&text))
}

fn parse(text: &[u8]) -> Vec<Mapping> {
    text.split(|&b| b == b'\n').filter_map(line).collect()
}

/// `start-end perms offset major:minor inode      path`.
fn line(line: &[u8]) -> Option<Mapping> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    if words.next()?.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let offset = hex(words.next()?)?;
    let inode = words.nth(1)?.parse().ok()?;
    let path = words.next().unwrap_or_default().trim_start();
    Some(Mapping { start: hex(start)?, end: hex(end)?, offset, inode, path: path.to_owned() })
}

impl Mapping {
    /// What messages call it: the path, also where the file has been deleted since.
    pub fn name(&self) -> &str {
        self.path.strip_suffix(" (deleted)").unwrap_or(&self.path)
    }
}

/// The one with this address.
pub fn find(mappings: &[Mapping], address: u64) -> Option<&Mapping> {
    let behind = mappings.partition_point(|m| m.start <= address);
    mappings[..behind].last().filter(|m| address < m.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_mappings_are_told() {
        let text = b"55d0c8e00000-55d0c8e01000 r--p 00000000 fe:01 131                        /usr/bin/a b\n\
            55d0c8e01000-55d0c8e05000 r-xp 00001000 fe:01 131                        /usr/bin/a b\n\
            7f0000000000-7f0000001000 r-xp 00002000 00:1f 7                          /tmp/gone (deleted)\n\
            7f0000002000-7f0000003000 r-xp 00000000 00:00 0 \n\
            7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]\n";
        let found = parse(text);
        let brief: Vec<_> = found.iter().map(|m| (m.start, m.offset, m.inode, m.name())).collect();
        assert_eq!(
            brief,
            [
                (0x55d0_c8e0_1000, 0x1000, 131, "/usr/bin/a b"),
                (0x7f00_0000_0000, 0x2000, 7, "/tmp/gone"),
                (0x7f00_0000_2000, 0, 0, ""),
                (0x7ffd_0000_0000, 0, 0, "[vdso]"),
            ]
        );
        assert_eq!(find(&found, 0x55d0_c8e0_4fff), Some(&found[0]));
        assert_eq!(find(&found, 0x55d0_c8e0_5000), None);
        assert_eq!(find(&found, 0), None);
    }

    #[test]
    fn this_process_is_found_in_its_own_mappings() {
        let mappings = executable(std::process::id()).expect("procfs");
        let here = find(&mappings, executable as *const () as u64).expect("this function is mapped");
        assert_eq!(here.name(), std::env::current_exe().expect("procfs").to_str().expect("UTF-8"));
    }
}
