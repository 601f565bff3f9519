#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| castkeep::fuzzing::fuzz_ssh_policy(data));
