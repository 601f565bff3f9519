//! The thread that asks for the certificate again and again, so that it is renewed before it ends.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::config::{StartError, duration};
use super::tls::{Reloaded, Tls};
use crate::limits;

/// The thread. It ends soon after the value is gone; nobody waits for it, since tailscaled may take its time.
#[derive(Debug)]
pub(crate) struct Renewal {
    order: Arc<(Mutex<Order>, Condvar)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Wait,
    AskNow,
    End,
}

impl Renewal {
    pub(crate) fn start(tls: Arc<Tls>, period: Duration) -> Result<Self, StartError> {
        let order = Arc::new((Mutex::new(Order::Wait), Condvar::new()));
        let for_thread = Arc::clone(&order);
        thread::Builder::new()
            .name("castkeep-cert".into())
            .stack_size(super::CONNECTION_STACK)
            .spawn(move || run(&tls, period, &for_thread))
            .map_err(|e| StartError::new("the thread for the certificate", &e.to_string(), ""))?;
        Ok(Self { order })
    }

    /// Asks now, in the background.
    pub(crate) fn ask_now(&self) {
        self.set(Order::AskNow);
    }

    fn set(&self, order: Order) {
        let (state, changed) = &*self.order;
        *state.lock().unwrap_or_else(PoisonError::into_inner) = order;
        changed.notify_all();
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.set(Order::End);
    }
}

fn run(tls: &Tls, period: Duration, order: &(Mutex<Order>, Condvar)) {
    let first_retry = duration(limits::CERTIFICATE_RETRY).min(period);
    let (mut pause, mut retry) = (period, first_retry);
    loop {
        let (state, changed) = order;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = changed
            .wait_timeout_while(state, pause, |order| *order == Order::Wait)
            .unwrap_or_else(PoisonError::into_inner);
        if *state == Order::End {
            return;
        }
        *state = Order::Wait;
        drop(state);
        match tls.reload() {
            Ok(reloaded) => {
                if reloaded == Reloaded::New {
                    log::info!("a new certificate is in use");
                }
                (pause, retry) = (period, first_retry);
                if tls.ends_soon() {
                    log::error!("the certificate ends soon, and tailscaled has no newer one");
                }
            }
            Err(e) => {
                let soon = if tls.ends_soon() { ", which ends soon or has ended" } else { "" };
                log::error!("the certificate in use{soon} stays: {e}");
                pause = retry;
                retry = (retry * 2).min(period);
            }
        }
    }
}
