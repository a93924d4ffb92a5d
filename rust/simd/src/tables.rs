//! Tables that transforms need, made once and kept until they are forgotten.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Tables by their type and two sizes.
type Known = HashMap<(TypeId, usize, usize), Arc<dyn Any + Send + Sync>>;

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// The table of two sizes, from an earlier call or from `make`.
pub(crate) fn remembered<T: Send + Sync + 'static>(
    (first, second): (usize, usize),
    make: impl FnOnce() -> T,
) -> Arc<T> {
    let key = (TypeId::of::<T>(), first, second);
    // Nobody waits for the lock, which a forked child may find locked for ever: whoever does not get it at once makes
    // a table of its own.
    let found = KNOWN.try_lock().ok().and_then(|mut known| known.get_or_insert_default().get(&key).cloned());
    let table = found.unwrap_or_else(|| {
        let made: Arc<dyn Any + Send + Sync> = Arc::new(make());
        match KNOWN.try_lock() {
            Ok(mut known) => known.get_or_insert_default().entry(key).or_insert(made).clone(),
            Err(_) => made,
        }
    });
    table.downcast().expect("the key names the type")
}

/// Gives the memory of all tables back once running calls are done; keeps them when a call is just looking one up.
pub fn forget() {
    if let Ok(mut known) = KNOWN.try_lock() {
        *known = None;
    }
}
