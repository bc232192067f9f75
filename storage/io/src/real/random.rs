//! Randomness of the operating system.

use std::io;

/// Fills `bytes` by getrandom(2), which cannot fail for want of randomness once the machine is up.
pub(crate) fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: the pointer and the length are those of `rest`.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => {
                let error = io::Error::last_os_error();
                assert_eq!(
                    error.kind(),
                    io::ErrorKind::Interrupted,
                    "the kernel gives no randomness: {error}"
                );
            }
        }
    }
}
