//! Buffers that begin where a page does. A large allocation begins 16 bytes into one, and there some processors copy out of the page
//! cache, which is page-aligned, at less than half their speed.

/// Bytes.
pub const PAGE: usize = 4096;

/// Where the first page in a buffer begins, if the buffer is longer than a page.
pub fn first_page(buffer: &[u8]) -> usize {
    buffer.as_ptr().align_offset(PAGE).min(PAGE)
}
