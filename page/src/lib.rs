//! What the page asks of the library: a line of JSON in, a line of JSON out.
//!
//! WebAssembly passes nothing but numbers, so a text goes through a buffer: the page asks for
//! [`room`], writes its request there, calls [`answer`] and reads the answer where that says. Nothing
//! here knows that it is in a browser, and all of it is tested outside one.

mod bench;
mod digits;
mod request;

use std::cell::RefCell;

use bench::Bench;

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// What lasts from one request to the next.
#[derive(Default)]
struct State {
    bench: Bench,
    text: Vec<u8>,
}

/// Makes room for a request of so many bytes, and returns its address.
#[allow(unsafe_code)] // A name in the module's table; nothing else has it.
#[unsafe(no_mangle)]
pub extern "C" fn room(bytes: usize) -> usize {
    STATE.with_borrow_mut(|state| {
        state.text = vec![0; bytes];
        state.text.as_ptr() as usize
    })
}

/// Takes the request for its answer, and returns the address of that; [`answer_length`] is its length.
#[allow(unsafe_code)] // As above.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> usize {
    STATE.with_borrow_mut(|state| {
        let State { bench, text } = state;
        *text = request::answer(bench, text).into_bytes();
        text.as_ptr() as usize
    })
}

/// How many bytes the last answer has.
#[allow(unsafe_code)] // As above.
#[unsafe(no_mangle)]
pub extern "C" fn answer_length() -> usize {
    STATE.with_borrow(|state| state.text.len())
}
