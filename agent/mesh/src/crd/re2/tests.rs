//! What expressions take and what is refused, as RE2 has it.

use crate::crd::regex::{check_regex, full_regex};

#[test]
fn expressions_take_what_they_take_in_re2() {
    // The expression, what it takes, what it does not.
    let table: [(&str, &[&str], &[&str]); 62] = [
        (r"\d+", &["12"], &["١٢", "", "a"]),
        (r"\D", &["a", "١"], &["1"]),
        (r"\w+", &["a_9"], &["é", "a-b"]),
        (r"\W", &["é", "-"], &["a"]),
        (r"a\sb", &["a b", "a\tb", "a\x0cb"], &["a\u{a0}b", "a\x0bb"]),
        (r"\S", &["é", "\x0b"], &[" "]),
        (r".*\bfoo\b.*", &["foo", "a foo b", "éfoo"], &["afoo", "foo_"]),
        (r"é\Bb", &[], &["éb"]),
        (r"a\Bb", &["ab"], &[]),
        ("[a-z&&[^b]]+", &["b]", "&]]", "[]", "^]"], &["c", "a"]),
        ("[a~~b]", &["a", "~", "b"], &["c"]),
        ("[0-9--]", &["-", "3"], &["/"]),
        ("[a-c--b]", &["a", "b", "-"], &["d"]),
        ("[a[b]+", &["[", "ab["], &["]"]),
        (r"[\d-z]", &["5", "-", "z"], &["a"]),
        (r"[\d-a-c]", &["5", "-", "b"], &["`"]),
        (r"[^\d\s]", &["a", "é"], &["5", " "]),
        (r"[\D5]", &["5", "a"], &["6"]),
        ("[]a]+", &["]a"], &["b"]),
        ("[^]a]", &["b"], &["]", "a"]),
        ("[--a]", &["-", "5", "a"], &["b"]),
        ("[a-]", &["-", "a"], &["b"]),
        ("[[:alpha:][:^digit:]]", &["a", "é"], &["1"]),
        ("[[:word:]-]+", &["a_-"], &["é"]),
        ("[[:alpha]", &["[", ":", "a"], &["b"]),
        ("[ a#]+", &["a #"], &["b"]),
        (r"\Qa.b\E", &["a.b"], &["axb", "Qa.bE"]),
        (r"\Qa.b\E+", &["a.bb"], &["a.ba.b"]),
        (r"\Q(*", &["(*"], &["("]),
        (r"\Q\E", &[""], &["a"]),
        (r"\x41\x{42}\103\012", &["ABC\n"], &["abc"]),
        (r"\a\f\n\r\t\v", &["\x07\x0c\n\r\t\x0b"], &[""]),
        (r"\.\-\_\/\#", &[".-_/#"], &["a"]),
        (r"\<a\>", &["<a>"], &["a"]),
        (r"a\b{start}", &["a{start}"], &["a"]),
        (r"[\.\]\\\-]+", &[r".]\-"], &["a"]),
        (r"\pL+", &["aé"], &["1"]),
        (r"\p{Greek}+", &["αβ"], &["a"]),
        (r"\P{Greek}\p{^Greek}[\p{Lu}\PN]", &["aaa", "aaA"], &["ααα", "aa1"]),
        (r"\p{Any}\P{Cs}", &["a\n"], &["a"]),
        ("/users/{id}", &["/users/{id}"], &["/users/1"]),
        ("a{2,3}", &["aa", "aaa"], &["a", "aaaa", "a{2,3}"]),
        ("a{2}?b{1,}", &["aab", "aabb"], &["ab"]),
        ("x{,3}", &["x{,3}"], &["xxx"]),
        ("x{01}", &["x{01}"], &["x"]),
        ("(a{10}){100}", &[], &["a"]),
        ("x{0}", &[""], &["x"]),
        ("(?i)ab", &["aB"], &["c"]),
        ("a(?i:b)c", &["aBc"], &["ABc"]),
        ("(?i-s:A.)(?s).", &["aé\n"], &["a\n\n"]),
        ("(?ii)a", &["A"], &["b"]),
        ("(?U)a+", &["aa"], &[""]),
        ("a(?)b", &["ab"], &["a"]),
        ("(?P<n>a)(?<m>b)(?P<1x>c)", &["abc"], &["ab"]),
        ("(?m)a$\n^b", &["a\nb"], &["ab"]),
        ("a$|^b", &["a", "b"], &["ab"]),
        (r"\Aa\z", &["a"], &["a\n"]),
        (".", &["é"], &["\n"]),
        ("[^a]", &["\n"], &["a"]),
        ("a||b", &["a", "", "b"], &["c"]),
        ("()|(|a)*", &["", "aa"], &["b"]),
        ("a}b]", &["a}b]"], &["ab"]),
    ];
    for (pattern, takes, refuses) in table {
        let regex = full_regex(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
        for text in takes {
            assert!(regex.is_match(text), "{pattern} takes {text:?}");
        }
        for text in refuses {
            assert!(!regex.is_match(text), "{pattern} does not take {text:?}");
        }
    }
}

#[test]
fn what_re2_refuses_is_refused() {
    for pattern in [
        "(?x)a b",
        "(?R)",
        r"\u0041",
        "x{1001}",
        "x{2,1}",
        "x{99999999999}",
        "(a{100}){100}",
        "((a{10}){10}){11}",
        "a**",
        "a*+",
        "a{2}{3}",
        "a??*",
        "*a",
        "a|*",
        "(+)",
        "{2}",
        "^(?i)*",
        "(a",
        "a)",
        "[a",
        "[]",
        "[z-a]",
        r"[a-\d]",
        r"[\b]",
        r"[\Qa\E]",
        "[[:foo:]]",
        r"\p{greek}",
        r"\p{Grek}",
        r"\p{L",
        r"\pX",
        r"\8",
        r"\1",
        r"(a)\1",
        r"\x4",
        r"\x{}",
        r"\x{110000}",
        r"\x{D800}",
        r"\é",
        r"\y",
        r"\Z",
        r"\C",
        r"a\E",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?<!a)",
        "(?P=n)",
        "(?P<n>a)(?P<n>b)",
        "(?P<>a)",
        "(?P<a-b>a)",
        "(?i-)a",
        "(?--i)a",
        "(?i",
        "\\",
    ] {
        assert!(check_regex(pattern).is_err(), "{pattern} is refused");
    }
}

#[test]
fn every_class_of_re2_is_known() {
    for name in super::CATEGORIES.split_whitespace().chain(super::SCRIPTS.split_whitespace()) {
        assert_eq!(check_regex(&format!(r"\p{{{name}}}[\P{{{name}}}]")), Ok(()));
    }
}
