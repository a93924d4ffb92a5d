//! Compiled programs, kept from one call to the next.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use striate_core::branches::Branches;

/// Programs kept at most; one is a few tens of kilobytes.
const KEPT: usize = 128;

type Known = HashMap<(Branches, &'static str), Arc<dyn Any + Send + Sync>>;

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// What `make` made of a request for an instruction set.
pub fn remembered<T: Send + Sync + 'static>(of: &Branches, isa: &'static str, make: impl FnOnce() -> T) -> Arc<T> {
    // Nobody waits for the lock, which a forked child may find locked for ever: whoever does not get it at once makes
    // a program of its own.
    let key = (of.clone(), isa);
    let found = KNOWN.try_lock().ok().and_then(|known| known.as_ref()?.get(&key).cloned());
    let made = found.unwrap_or_else(|| {
        let made: Arc<dyn Any + Send + Sync> = Arc::new(make());
        if let Ok(mut known) = KNOWN.try_lock() {
            let known = known.get_or_insert_default();
            if known.len() >= KEPT {
                known.clear();
            }
            known.insert(key, made.clone());
        }
        made
    });
    made.downcast().expect("the key names the type")
}

/// Gives the memory of all programs back once running calls are done.
pub fn forget() {
    if let Ok(mut known) = KNOWN.try_lock() {
        *known = None;
    }
}
