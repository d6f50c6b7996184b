//! The other tools find their tracepoints in tracefs, which not every machine has mounted.

use std::{io, path::Path, ptr};

use anyhow::{Context as _, Result, ensure};

const PLACE: &std::ffi::CStr = c"/sys/kernel/tracing";

/// Mount it, if it is not, for this process and its children alone; it is gone with them.
///
/// # Errors
/// Not permitted, or the kernel has no tracefs.
pub fn provide() -> Result<()> {
    let events = Path::new("/sys/kernel/tracing/events/sock");
    if events.exists() || Path::new("/sys/kernel/debug/tracing/events/sock").exists() {
        return Ok(());
    }
    // SAFETY: no pointers.
    done(unsafe { libc::unshare(libc::CLONE_NEWNS) }, "a mount namespace")?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: constant strings; null where the kernel ignores the argument.
    done(unsafe { libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), private, ptr::null()) }, "private mounts")?;
    let name = c"tracefs".as_ptr();
    // SAFETY: as above.
    done(unsafe { libc::mount(name, PLACE.as_ptr(), name, 0, ptr::null()) }, "mounting tracefs")?;
    ensure!(events.exists(), "this kernel's tracefs has no socket tracepoints");
    Ok(())
}

fn done(result: libc::c_int, what: &'static str) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context(what) }
}
