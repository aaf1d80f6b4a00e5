use super::*;

#[test]
fn an_id_is_made_up_once() {
    let instance = NewInstance::new("product", "10.0.0.7:7070").unwrap();
    let registration = instance.into_registration().unwrap();
    assert!(registration.id.unwrap().as_str().starts_with("product-"));
}

#[test]
fn rules_are_checked_before_anything_is_sent() {
    let instance = || NewInstance::new("product", "10.0.0.7:7070").unwrap();
    assert_eq!(instance().health_path("health").into_registration().unwrap_err().field, "check.path");
    assert_eq!(instance().weight(0).into_registration().unwrap_err().field, "weight");
    assert_eq!(instance().interval(Duration::ZERO).into_registration().unwrap_err().field, "check.interval");
    assert_eq!(instance().id("a b").unwrap_err().field, "id");
    assert_eq!(NewInstance::new("a b", "10.0.0.7:7070").unwrap_err().field, "name");
}

#[test]
fn an_identified_instance_expects_its_own_id() {
    let instance = || NewInstance::new("product", "10.0.0.7:7070").unwrap();
    let expected = |instance: NewInstance| {
        let registration = instance.into_registration().unwrap();
        let expect = registration.check.expect.as_deref().and_then(Expect::as_header);
        expect.map(|(name, value)| (name == INSTANCE_HEADER, value == registration.id.unwrap().as_str()))
    };
    assert_eq!(expected(instance()), None);
    assert_eq!(expected(instance().identified()), Some((true, true)));
    // Whatever comes later, and whichever path it is visited at.
    let later = instance().identified().check(Check::https("/healthz")).id("product-1").unwrap();
    assert_eq!(expected(later), Some((true, true)));
    assert_eq!(expected(instance().identified().expect(None)), None);
    assert_eq!(expected(instance().identified().expect(Expect::header("x-id", "7"))), Some((false, false)));
    let none = instance().identified().check(Check::tcp()).into_registration().unwrap_err();
    assert_eq!(none.field, "check.expect");
    // The longest id has room.
    assert_eq!(expected(instance().id("x".repeat(128)).unwrap().identified()), Some((true, true)));
}

#[test]
#[cfg(feature = "service")]
fn a_service_is_identified_where_its_health_answers() {
    let instance = || NewInstance::new("product", "10.0.0.7:7070").unwrap();
    let expects = |instance: NewInstance| {
        let registration = instance.identified_by_default().into_registration().unwrap();
        registration.check.expect.map(|expect| (*expect).clone())
    };
    let own = Some(Expect::header(INSTANCE_HEADER, "p-1"));
    assert_eq!(expects(instance().id("p-1").unwrap()), own);
    assert_eq!(expects(instance().id("p-1").unwrap().health_path("/health").interval(Duration::from_secs(1))), own);
    for other in [Check::http("/healthz"), Check::https("/health"), Check::tcp(), Check::none()] {
        assert_eq!(expects(instance().check(other)), None);
    }
    assert_eq!(expects(instance().expect(None)), None, "as its author wishes");
    let text = Expect::body("me");
    assert_eq!(expects(instance().expect(text.clone())), Some(text));
}

#[test]
fn addresses_are_text_or_typed() {
    let address: std::net::SocketAddr = "[::1]:7070".parse().unwrap();
    let registration = NewInstance::new("product", address).unwrap().into_registration().unwrap();
    assert_eq!(registration.address.to_string(), "[::1]:7070");
}
