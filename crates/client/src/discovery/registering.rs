//! Instances: registered, renewed, drained and taken out.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use roundsman_protocol::{Dismissed, InstanceId, Patch, Patched, instance::Registered, rpc::Wait};

use super::Discovery;
use crate::{builder::inside_runtime, error::Error, new_instance::NewInstance, registration::Registration};

impl Discovery {
    /// Registers an instance, and keeps it registered for as long as the [`Registration`] lives.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::NewInstance;
    ///
    /// let me = discovery.register(NewInstance::new("order", "10.0.0.8:6060")?.version("1.0.0")).await?;
    /// println!("registered as {}", me.id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Hold the registration: dropped, it is kept no longer. The compiler warns of this mistake:
    ///
    /// ```compile_fail
    /// #![deny(unused_must_use)]
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// discovery.register(roundsman::NewInstance::new("order", "10.0.0.8:6060")?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] when the instance breaks a rule, and every other error of a call: nothing goes on in
    /// the background then, and the caller decides. See [`Discovery::register_in_background`] for the other way.
    pub async fn register(&self, instance: NewInstance) -> Result<Registration, Error> {
        let registration = instance.into_registration()?;
        let (registered, generation) = self.register_on(&registration).await;
        registered?;
        Ok(Registration::keep(self, registration, generation))
    }

    /// Registers an instance as soon as a server can be reached, and keeps it registered.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the instance breaks a rule, and outside a Tokio runtime.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), roundsman::Error> {
    /// # use roundsman::{Discovery, NewInstance};
    /// let discovery = Discovery::builder().servers("127.0.0.1:5555").connect_lazy()?;
    /// let mut registration = discovery.register_in_background(NewInstance::new("order", "10.0.0.8:6060")?)?;
    /// // … serve …
    /// registration.registered().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn register_in_background(&self, instance: NewInstance) -> Result<Registration, Error> {
        inside_runtime()?;
        Ok(Registration::keep(self, instance.into_registration()?, None))
    }

    /// Registers an instance and leaves it at that: nobody keeps it registered, nobody takes it out but its
    /// failing checks or [`Discovery::deregister`]. For tools that register other programs. What it takes is the data that
    /// [`NewInstance::into_registration`] makes, and not the handle [`Registration`].
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::{Check, NewInstance};
    ///
    /// let database = NewInstance::new("database", "10.0.0.9:5432")?.check(Check::none()).into_registration()?;
    /// let registered = discovery.register_once(&database).await?;
    /// println!("{}", registered.id);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] when the instance breaks a rule, and every other error of a call.
    pub async fn register_once(&self, registration: &roundsman_protocol::Registration) -> Result<Registered, Error> {
        registration.validate()?;
        // The id is made up here and not by the server, so that a registration sent again makes no second instance.
        let mut registration = registration.clone();
        registration.id.get_or_insert_with(|| InstanceId::random(&registration.name));
        self.register_on(&registration).await.0
    }

    /// Registers, and tells on which connection this was tried last.
    pub(crate) async fn register_on(
        &self,
        registration: &roundsman_protocol::Registration,
    ) -> (Result<Registered, Error>, Option<u64>) {
        let generation = AtomicU64::new(0);
        let sent = self.call(self.inner.timeout, |connection, context| {
            generation.store(connection.generation, Ordering::Relaxed);
            let registration = registration.clone();
            async move { connection.client.register(context, registration).await }
        });
        let result = sent.await;
        let generation = generation.into_inner();
        (result, (generation > 0).then_some(generation))
    }

    /// Takes an instance out for good.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// discovery.deregister(&"database-1".parse()?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DiscoveryError::NotRegistered`](crate::DiscoveryError::NotRegistered) when there is none of this id.
    pub async fn deregister(&self, id: &InstanceId) -> Result<(), Error> {
        self.call(self.inner.timeout, |connection, context| {
            let id = id.clone();
            async move { connection.client.deregister(context, id).await }
        })
        .await
    }

    /// Takes an instance out as an operator does: the answer tells who keeps it registered, and will register it again. With
    /// `block` its id is kept out for so long, also on the server's next start; whoever registers under it is refused with
    /// [`DiscoveryError::Blocked`](crate::DiscoveryError::Blocked). A block of no time ends an earlier one.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let hour = std::time::Duration::from_secs(3_600);
    /// let dismissed = discovery.dismiss(&"product-1".parse()?, Some(hour)).await?;
    /// println!("kept out until {:?}", dismissed.blocked_until);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DiscoveryError::NotRegistered`](crate::DiscoveryError::NotRegistered) when there is none of this id, not even one
    /// that is evicted; [`DiscoveryError::Blocked`](crate::DiscoveryError::Blocked) when it is kept out already, and `block`
    /// says nothing else; [`Error::Invalid`] for a block that a server of an earlier release cannot keep.
    pub async fn dismiss(&self, id: &InstanceId, block: Option<Duration>) -> Result<Dismissed, Error> {
        let dismissed = self.call(self.inner.timeout, |connection, context| {
            let (id, block) = (id.clone(), block.map(Wait));
            async move { connection.client.dismiss(context, id, block).await }
        });
        match dismissed.await {
            // A server of an earlier release, which does not know who keeps it.
            Err(Error::Invalid(invalid)) if invalid.field == "dismiss" => {
                self.deregister(id).await.map(|()| Dismissed::default())
            }
            dismissed => dismissed,
        }
    }

    /// Changes what is named of an instance, whoever registered it, and leaves the rest as it is. The server carries it
    /// out, so that two changes at a time both hold.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::protocol::Patch;
    ///
    /// let patch = Patch { weight: Some(50), ..Patch::default() };
    /// let patched = discovery.patch(&"product-1".parse()?, &patch).await?;
    /// println!("{} and now {}", patched.before.weight, patched.after.weight);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DiscoveryError::NotRegistered`](crate::DiscoveryError::NotRegistered) when there is none of this id;
    /// [`Error::Invalid`] when it breaks a rule, and for a server of an earlier release, with the field `update`.
    pub async fn patch(&self, id: &InstanceId, patch: &Patch) -> Result<Patched, Error> {
        self.call(self.inner.timeout, |connection, context| {
            let (id, patch) = (id.clone(), patch.clone());
            async move { connection.client.update(context, id, patch).await }
        })
        .await
    }

    /// "This instance is alive." [`Registration`] does this by itself; for those who keep an instance with a
    /// ttl check alive in their own way.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// discovery.renew(&"night-job-1".parse()?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DiscoveryError::NotRegistered`](crate::DiscoveryError::NotRegistered) when the server does not know it,
    /// or evicted it: register again.
    pub async fn renew(&self, id: &InstanceId) -> Result<(), Error> {
        self.call(self.inner.timeout, |connection, context| {
            let id = id.clone();
            async move { connection.client.renew(context, id).await }
        })
        .await
    }

    /// Stops (`on`) or resumes handing an instance out. It stays registered. Asked for by another client than the one that
    /// registered it, a drain holds whatever registers under the id, until such a client resumes it.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let id = "product-1".parse()?;
    /// discovery.drain(&id, true).await?;
    /// // … no new calls come; what has to be done to it is done …
    /// discovery.drain(&id, false).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DiscoveryError::NotRegistered`](crate::DiscoveryError::NotRegistered) when there is none of this id.
    pub async fn drain(&self, id: &InstanceId, on: bool) -> Result<(), Error> {
        self.call(self.inner.timeout, |connection, context| {
            let id = id.clone();
            async move { connection.client.drain(context, id, on).await }
        })
        .await
    }
}
