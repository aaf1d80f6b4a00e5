//! The client of the whole process, for those who want one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{builder::Builder, discovery::Discovery, error::Error};

static GLOBAL: Mutex<Option<Discovery>> = Mutex::new(None);

impl Discovery {
    /// The client that the whole process shares: the one given to [`Discovery::set_global`], or else, made by the first
    /// call, one that connects in the background as the environment says ([`Builder::from_env`]).
    ///
    /// A client lives in the Tokio runtime in which it was made, and ends with it: in programs with several runtimes,
    /// and in tests, pass clients on instead. After [`Discovery::close`] it stays closed.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), roundsman::Error> {
    /// use roundsman::Discovery;
    ///
    /// let product = Discovery::global()?.get("product").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] when the environment breaks a rule, and outside a Tokio runtime, if it has to be made.
    pub fn global() -> Result<Self, Error> {
        let mut global = lock();
        if let Some(discovery) = &*global {
            return Ok(discovery.clone());
        }
        let discovery = Builder::from_env().connect_lazy()?;
        *global = Some(discovery.clone());
        Ok(discovery)
    }

    /// Makes this client the one that [`Discovery::global`] answers with. Once, at the start of the program.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), roundsman::Error> {
    /// use roundsman::Discovery;
    ///
    /// let discovery = Discovery::builder().servers("10.0.0.1:5555").namespace("shop").connect().await?;
    /// if discovery.set_global().is_err() {
    ///     println!("there was one already, and it stays");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Gives the client back when there is one already.
    pub fn set_global(self) -> Result<(), Self> {
        let mut global = lock();
        if global.is_some() {
            return Err(self);
        }
        *global = Some(self);
        Ok(())
    }
}

fn lock() -> MutexGuard<'static, Option<Discovery>> {
    GLOBAL.lock().unwrap_or_else(PoisonError::into_inner)
}
