//! What the system should know of memory that is about to be written for the first time.

/// Tensors from this size on come from the system with every use and go back to it after: the C library never keeps
/// blocks above 32 MiB, and smaller ones not always.
const LARGE: usize = 4 << 20;

/// Asks for large pages where a large tensor lies. The first touch of a page costs about a microsecond in a virtual
/// machine, which for 4 KiB pages is more than a memory-bound kernel takes to fill them. The system may ignore it.
pub fn expect_writes(address: usize, bytes: usize) {
    #[cfg(target_os = "linux")]
    if bytes >= LARGE {
        const PAGE: usize = 2 << 20;
        let (from, to) = (address.next_multiple_of(PAGE), (address + bytes) / PAGE * PAGE);
        if from < to {
            // SAFETY: the range lies inside a live tensor; the advice changes no content and no access right.
            unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (address, bytes, LARGE);
}
