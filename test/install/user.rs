// SPDX-License-Identifier: LGPL-2.1-or-later
//! A VMM in Rust, as far as libhgm sees it: the few declarations that restoring a region needs, and
//! a source that is a Rust function.
use std::ffi::{c_void, CStr};
use std::os::raw::{c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 4096;
const LENGTH: usize = 1024 * PAGE;
const ALLOW_USER_MODE_ONLY: u32 = 1;

#[repr(C)]
pub struct Engine([u8; 0]);
#[repr(C)]
pub struct Region([u8; 0]);
#[repr(C)]
pub struct Source([u8; 0]);

#[repr(C)]
pub struct Opts {
    size: usize,
    flags: u32,
    fault_threads: u32,
    workers: u32,
    spin_us: u32,
    retries: u32,
    retry_first_us: u32,
    fill_window_bytes: u64,
    log: Option<LogFn>,
    log_user: *mut c_void,
    log_level: u32,
    collapse_threads: u32,
    outage_ms: u64,
}

#[repr(C)]
pub struct RegionOpts {
    size: usize,
    length: u64,
    source: *mut Source,
    source_offset: u64,
    backing: u32,
    flags: u32,
    block_bytes: u64,
    fd: c_int,
    reserved: u32,
    fd_offset: u64,
    addr: *mut c_void,
    map_bytes_max: u64,
    require: u32,
    avoid: u32,
    peer: *mut c_void,
}

#[repr(C)]
pub struct Io {
    engine: *mut Engine,
    id: u64,
    offset: u64,
    length: usize,
    buf: *mut u8,
    flags: u32,
    attempt: u32,
}

type LogFn = extern "C" fn(user: *mut c_void, level: u32, text: *const c_char);
type ReadFn = extern "C" fn(user: *mut c_void, io: *const Io) -> i64;

extern "C" {
    fn hgm_create(out: *mut *mut Engine, opts: *const Opts) -> c_int;
    fn hgm_start(h: *mut Engine) -> c_int;
    fn hgm_wait(h: *mut Engine, timeout_ms: c_int) -> c_int;
    fn hgm_destroy(h: *mut Engine);
    fn hgm_errmsg() -> *const c_char;
    fn hgm_source_fn(
        out: *mut *mut Source,
        read: ReadFn,
        user: *mut c_void,
        opts: *const c_void,
    ) -> c_int;
    fn hgm_source_destroy(src: *mut Source);
    fn hgm_region_create(
        out: *mut *mut Region,
        h: *mut Engine,
        opts: *const RegionOpts,
    ) -> c_int;
    fn hgm_region_addr(r: *const Region) -> *mut u8;
    fn hgm_region_length(r: *const Region) -> u64;
}

fn check(rc: c_int) {
    if rc != 0 {
        let text = unsafe { CStr::from_ptr(hgm_errmsg()) };
        panic!("{}: {}", rc, text.to_string_lossy());
    }
}

fn byte_of(offset: usize) -> u8 {
    (offset / PAGE * 31 + offset % PAGE) as u8
}

extern "C" fn hear(user: *mut c_void, level: u32, text: *const c_char) {
    let heard = unsafe { &*(user as *const AtomicUsize) };
    let text = unsafe { CStr::from_ptr(text) };

    println!("{}: {}", level, text.to_string_lossy());
    heard.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn answer(user: *mut c_void, io: *const Io) -> i64 {
    let io = unsafe { &*io };
    let asked = unsafe { &*(user as *const AtomicUsize) };
    let to = unsafe { std::slice::from_raw_parts_mut(io.buf, io.length) };

    for (i, byte) in to.iter_mut().enumerate() {
        *byte = byte_of(io.offset as usize + i);
    }
    asked.fetch_add(io.length, Ordering::Relaxed);
    io.length as i64
}

fn main() {
    let asked = AtomicUsize::new(0);
    let heard = AtomicUsize::new(0);
    let mut engine = ptr::null_mut();
    let mut source = ptr::null_mut();
    let mut region = ptr::null_mut();
    let opts = Opts {
        size: std::mem::size_of::<Opts>(),
        flags: ALLOW_USER_MODE_ONLY,
        fault_threads: 1,
        workers: 1,
        spin_us: 0,
        retries: 0,
        retry_first_us: 0,
        fill_window_bytes: 0,
        log: Some(hear),
        log_user: &heard as *const AtomicUsize as *mut c_void,
        log_level: 0,
        collapse_threads: 0,
        outage_ms: 0,
    };

    unsafe {
        check(hgm_create(&mut engine, &opts));
        check(hgm_source_fn(
            &mut source,
            answer,
            &asked as *const AtomicUsize as *mut c_void,
            ptr::null(),
        ));
        let region_opts = RegionOpts {
            size: std::mem::size_of::<RegionOpts>(),
            length: LENGTH as u64,
            source,
            source_offset: 0,
            backing: 0,
            flags: 0,
            block_bytes: 0,
            fd: -1,
            reserved: 0,
            fd_offset: 0,
            addr: ptr::null_mut(),
            map_bytes_max: 0,
            require: 0,
            avoid: 0,
            peer: ptr::null_mut(),
        };
        check(hgm_region_create(&mut region, engine, &region_opts));
        check(hgm_start(engine));
        assert_eq!(hgm_region_length(region) as usize, LENGTH);

        let memory = std::slice::from_raw_parts(hgm_region_addr(region), LENGTH);
        assert_eq!(memory[LENGTH - 1], byte_of(LENGTH - 1));
        check(hgm_wait(engine, 60000));
        assert!(memory.iter().enumerate().all(|(i, byte)| *byte == byte_of(i)));
        assert_eq!(asked.load(Ordering::Relaxed), LENGTH);
        assert!(heard.load(Ordering::Relaxed) >= 2);
        hgm_destroy(engine);
        hgm_source_destroy(source);
    }
    println!("{} bytes restored", LENGTH);
}
