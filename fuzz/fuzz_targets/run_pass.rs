#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bursar::fuzz::run_pass(input);
});
