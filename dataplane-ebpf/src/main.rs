#![no_std]
#![no_main]
//! The TC programs of the virtual switch.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
