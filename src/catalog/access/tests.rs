//! Rights over memberships, what comes back of roles, and what is kept of passwords.

use super::*;

fn access() -> Access {
    let mut access = Access::default();
    let role = |name: &str| Role { name: name.into(), login: true, ..Role::default() };
    let changes = [
        (1, role("reader")),
        (2, Role { member_of: [RoleId(1)].into(), ..role("group") }),
        (3, Role { member_of: [RoleId(2)].into(), ..role("ann") }),
    ];
    for (id, role) in changes {
        access.apply(&AccessChange::Role { id: RoleId(id), role: Some(Box::new(role)) });
    }
    access
}

#[test]
fn rights_come_over_memberships_and_end_with_them() {
    let mut access = access();
    let mut acl = Acl::default();
    acl.grant(RoleId(1), [Privilege::Select].into_iter().collect());
    let ann = RoleId(3);
    assert!(access.may(ann, &acl, Privilege::Select));
    assert!(!access.may(ann, &acl, Privilege::Insert));
    assert!(access.may(RoleId::OWNER, &acl, Privilege::Insert));
    assert!(access.is_member(ann, RoleId(1)) && !access.is_member(RoleId(1), ann));
    let admin = Role { member_of: [RoleId::OWNER].into(), ..Role::default() };
    assert!(access.leads_to_superuser(&admin));
    assert!(!access.role(ann).is_some_and(|role| access.leads_to_superuser(role)));
    access.apply(&AccessChange::Role { id: RoleId(2), role: None });
    assert!(!access.may(ann, &acl, Privilege::Select));
    assert!(access.role(ann).is_some_and(|role| role.member_of.is_empty()));
    acl.revoke(RoleId(1), [Privilege::Select].into_iter().collect());
    assert_eq!(acl, Acl::default());
    // Who is gone may nothing, not even what everybody may.
    acl.grant(RoleId::PUBLIC, [Privilege::Select].into_iter().collect());
    assert!(access.may(ann, &acl, Privilege::Select));
    assert!(!access.may(RoleId(2), &acl, Privilege::Select));
}

#[test]
fn all_of_it_comes_back_and_what_is_new_has_a_number_of_its_own() {
    let mut access = access();
    access.apply(&AccessChange::Decoy("seed".into()));
    let mut again = Access::default();
    access.changes().iter().for_each(|change| again.apply(change));
    assert_eq!(again.changes(), access.changes());
    assert!(Access::default().changes().is_empty());
    let id = access.next_id();
    let role = Role { name: "new".into(), ..Role::default() };
    access.apply(&AccessChange::Role { id, role: Some(Box::new(role)) });
    access.apply(&AccessChange::Role { id, role: None });
    assert_ne!(access.next_id(), id);
}

#[test]
fn a_verifier_is_no_password_and_never_printed() {
    let verifier = Verifier::of_password("pa55").expect("a password");
    let text = serde_json::to_string(&verifier).expect("text");
    assert!(text.starts_with("\"SCRAM-SHA-256$4096:") && !text.contains("pa55"));
    assert_eq!(format!("{verifier:?} {:?}", verifier.proof().expect("parts")), "Verifier Proof");
    // A client may have hashed it.
    let again: String = serde_json::from_str(&text).expect("text");
    assert_eq!(Verifier::of_password(&again).expect("a verifier"), verifier);
    let state = |text: &str| Verifier::of_password(text).map_err(|e| e.sqlstate()).err();
    assert_eq!(state(""), Some("22023"));
    assert_eq!(state("SCRAM-SHA-256$4096:x"), Some("22023"));
    assert_eq!(state("md50123456789abcdef0123456789abcdef"), Some("0A000"));
}

#[test]
fn who_does_not_exist_has_a_salt_that_stays() {
    let mut access = access();
    access.apply(&AccessChange::Decoy("seed".into()));
    let salt = |name: &str| access.verifier(name, 0).0.proof().expect("parts").salt;
    assert_eq!(salt("nobody"), salt("nobody"));
    assert_ne!(salt("nobody"), salt("somebody"));
    assert!(!access.verifier("nobody", 0).1);
}
