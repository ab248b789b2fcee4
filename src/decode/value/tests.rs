//! Values of a real server, in both of their forms: both give the JSON that the outbox gives.

use super::*;
use crate::decode::tests::{Sql, start_server, unhex};
use crate::random::Random;

/// How many random values of each type there are.
const RANDOM_VALUES: usize = 120;

/// How many random numbers with a fraction there are besides.
const MANY: usize = 5000;

/// A type, values that are worth a look, and where random ones come from.
type Sample = (&'static str, &'static [&'static str], fn(&mut Random) -> String);

const SAMPLES: [Sample; 36] = [
    ("bool", &["t", "f"], |_| "t".into()),
    ("int2", &["0", "-1", "32767", "-32768"], |r| (bits(r) as i16).to_string()),
    ("int4", &["0", "-1", "2147483647", "-2147483648"], |r| (bits(r) as i32).to_string()),
    (
        "int8",
        &["0", "-1", "9007199254740992", "9007199254740993", "-9007199254740992", "-9007199254740993"],
        |r| (bits(r) as i64 >> r.below(64)).to_string(),
    ),
    ("oid", &["0", "4294967295"], |r| (bits(r) as u32).to_string()),
    ("xid", &["3", "4294967295"], |r| (bits(r) as u32).to_string()),
    ("cid", &["0", "4294967295"], |r| (bits(r) as u32).to_string()),
    ("xid8", &["3", "18446744073709551615"], |r| bits(r).to_string()),
    ("float4", FLOATS, |r| some_float(f32::from_bits(bits(r) as u32))),
    ("float4", &["1.17549435e-38", "3.4028235e+38", "1e-45"], |r| {
        some_float((bits(r) >> r.below(64)) as f32)
    }),
    ("float8", FLOATS, |r| some_float(f64::from_bits(bits(r)))),
    ("float8", &["9007199254740993", "5e-324", "1.7976931348623157e308"], |r| {
        some_float((bits(r) >> r.below(64)) as f64 / 10f64.powi(r.below(20) as i32))
    }),
    ("float8", &["1e23", "9.5367431640625e-7"], |r| {
        format!("{}e{}", 1 + r.below(9), r.below(600) as i64 - 300)
    }),
    ("numeric", NUMERICS, numeric),
    ("numeric(20,6)", &["0", "-1", "1e13", "NaN"], |r| format!("{}.{}", r.below(1 << 30), r.below(1 << 30))),
    ("text", TEXTS, text),
    ("varchar(40)", &["", "a  "], text),
    ("bpchar(12)", &["", "a", "é"], |r| text(r).chars().take(12).collect()),
    ("name", &["", "say \"hi\""], |r| text(r).chars().take(15).collect()),
    ("\"char\"", &["", "a", "\"", "\\"], |r| char::from(1 + r.below(127) as u8).to_string()),
    ("bytea", &["\\x", "\\x00ff22"], |r| format!("\\x{}", hex(r, 2 * 40))),
    ("json", JSONS, |r| format!("[ {},\n\t{{\"a\" : {} }}]", r.below(9), r.below(9))),
    ("jsonb", JSONS, |r| format!("[ {},\n\t{{\"a\" : {} }}]", r.below(9), r.below(9))),
    ("uuid", &["00000000-0000-0000-0000-000000000000"], |r| format!("{:0<32}", hex(r, 32))),
    ("date", DATES, date),
    ("time", &["00:00", "24:00", "23:59:59.999999", "12:00:00.5"], |r| clock(r)),
    ("timetz", &["00:00+00", "24:00-15:59", "12:00:00.5+05:45:30"], |r| format!("{}{}", clock(r), zone(r))),
    ("timestamp", STAMPS, |r| stamp(r, "")),
    ("timestamptz", STAMPS, |r| {
        let zone = zone(r);
        stamp(r, &zone)
    }),
    ("interval", INTERVALS, interval),
    ("inet", ADDRESSES, |r| format!("{}/{}", address(r), r.below(33))),
    ("cidr", NETWORKS, |r| format!("{}/128", address_6(r))),
    ("macaddr", &["00:00:00:00:00:00"], |r| format!("{:0<12}", hex(r, 12))),
    ("macaddr8", &["ff:ff:ff:ff:ff:ff:ff:ff"], |r| format!("{:0<16}", hex(r, 16))),
    ("varbit", &["", "1", "10000000", "100000001"], |r| format!("{:b}", bits(r) >> r.below(64))),
    ("mood", &["fine", "so \"so\"", "élan"], |_| "fine".into()),
];

const FLOATS: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1.5",
    "0.1",
    "1e-4",
    "1e-5",
    "123456",
    "1234567",
    "999999",
    "1e6",
    "1e14",
    "1e15",
    "1e20",
    "NaN",
    "Infinity",
    "-Infinity",
    "1.5e-10",
    "100",
    "0.00012345",
];
const NUMERICS: &[&str] = &[
    "0",
    "0.00",
    "-0.5",
    "1",
    "10000",
    "9999.9999",
    "0.0001",
    "0.00001",
    "1e-20",
    "1e20",
    "123456789012345678901234567890",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e1000",
    "-1e-1000",
    "100000000.000100000",
];
const TEXTS: &[&str] = &[
    "",
    "NULL",
    "null",
    "{}",
    "a,b",
    "\"",
    "\\",
    "a\nb\tc\r\u{8}\u{c}\u{1}\u{1f}\u{7f}",
    "日本\u{2028}",
    " ",
];
const JSONS: &[&str] =
    &["null", "1", "\"a\\nb\"", "{\"a\": [1, 2.50, {}]}", "[]", "12345678901234567890.10", "{\n\"é\"\t:\r1}"];
const DATES: &[&str] = &[
    "2000-01-01",
    "1999-12-31",
    "2000-02-29",
    "2000-03-01",
    "1900-02-28",
    "1900-03-01",
    "2024-12-31",
    "1970-01-01",
    "infinity",
    "-infinity",
    "4713-01-01 BC",
    "0001-01-01",
    "0001-12-31 BC",
    "0001-02-29 BC",
    "0101-02-28 BC",
    "5874897-12-31",
    "10000-01-01",
];
const STAMPS: &[&str] = &[
    "2000-01-01 00:00:00",
    "1999-12-31 23:59:59.999999",
    "2024-02-29 12:30:00.5",
    "infinity",
    "-infinity",
    "4713-01-01 00:00:00 BC",
    "0044-03-15 12:00:00 BC",
    "294276-12-31 23:59:59.999999",
    "0001-01-01 00:00:00.000001",
];
const INTERVALS: &[&str] = &[
    "0",
    "1 year",
    "-1 year",
    "1 mon",
    "-1 day",
    "1 day -1 sec",
    "-1 day 1 sec",
    "-1 year 1 mon -1 day 1 us",
    "1 us",
    "-1 us",
    "25 months 100 hours",
    "1 mon -1 day",
    "2147483647 days",
    "-178000000 years",
    "2147483647:59:59.999999",
    "13 days 0.5 sec",
];
const ADDRESSES: &[&str] = &[
    "0.0.0.0",
    "127.0.0.1",
    "10.0.0.0/8",
    "255.255.255.255/0",
    "::",
    "::1",
    "::1/64",
    "::1.2.3.4",
    "::ffff:1.2.3.4",
    "2001:db8::",
    "1::2:0:0:3",
    "1:0:0:2::3",
    "0:0:1::",
    "::1:0",
    "::ffff:0:1",
    "1:2:3:4:5:6:7:0",
    "0:2:3:4:5:6:7:8",
    "64:ff9b::1.2.3.4/96",
];
const NETWORKS: &[&str] =
    &["10.0.0.0/8", "127.0.0.1/32", "0.0.0.0/0", "::/0", "::1/128", "2001:db8::/32", "::0.1.0.0/112"];

fn bits(random: &mut Random) -> u64 {
    random.below(1 << 31) << 33 | random.below(1 << 31) << 8 | random.below(1 << 8)
}

fn hex(random: &mut Random, digits_max: u64) -> String {
    let bytes = random.below(digits_max / 2 + 1);
    (0..bytes).map(|_| format!("{:02x}", random.below(256))).collect()
}

fn some_float(float: impl std::fmt::LowerExp) -> String {
    format!("{float:e}")
}

fn numeric(random: &mut Random) -> String {
    let sign = ["", "-"][random.below(2) as usize];
    let mut digits =
        || (0..random.below(24)).map(|_| char::from(b'0' + random.below(10) as u8)).collect::<String>();
    let (whole, fraction) = (digits(), digits());
    format!("{sign}0{whole}.{fraction}e{}", random.below(60) as i64 - 30)
}

fn text(random: &mut Random) -> String {
    let pieces =
        ["a", "é", "日", "😀", "\"", "\\", "\n", " ", ",", "{", "}", "'", "NULL", "\u{1}", "\u{7f}", ";"];
    (0..random.below(10)).map(|_| pieces[random.below(pieces.len() as u64) as usize]).collect()
}

fn date(random: &mut Random) -> String {
    let year_max = [3000, 250_000][random.below(2) as usize];
    let (year, month, day) = (1 + random.below(year_max), 1 + random.below(12), 1 + random.below(28));
    let era = if year < 4000 && random.below(3) == 0 { " BC" } else { "" };
    format!("{year:04}-{month:02}-{day:02}{era}")
}

fn clock(random: &mut Random) -> String {
    let fraction = ["", ".5", ".123456", ".000001", ".1200"][random.below(5) as usize];
    format!("{:02}:{:02}:{:02}{fraction}", random.below(24), random.below(60), random.below(60))
}

fn zone(random: &mut Random) -> String {
    let rest = ["", ":30", ":45:15"][random.below(3) as usize];
    format!("{}{:02}{rest}", ["+", "-"][random.below(2) as usize], random.below(15))
}

fn stamp(random: &mut Random, zone: &str) -> String {
    let (date, clock) = (date(random), clock(random));
    let (day, era) = date.split_once(' ').unwrap_or((&date, ""));
    format!("{day} {clock}{zone} {era}")
}

fn interval(random: &mut Random) -> String {
    let mut some = |shift: u64| match random.below(2) {
        0 => 0,
        _ => bits(random) as i64 >> (shift + random.below(64 - shift)),
    };
    let (months, days, us) = (some(56), some(56), some(20));
    // PostgreSQL 14 takes no more than 32 bits for each of these.
    format!("{months} mons {days} days {} secs {} us", us / 1_000_000, us % 1_000_000)
}

fn address(random: &mut Random) -> String {
    (0..4).map(|_| random.below(256).to_string()).collect::<Vec<_>>().join(".")
}

/// One with many zeros.
fn address_6(random: &mut Random) -> String {
    let words =
        (0..8).map(|_| if random.below(2) == 0 { 0 } else { bits(random) as u16 >> random.below(16) });
    words.map(|word| format!("{word:x}")).collect::<Vec<_>>().join(":")
}

#[test]
fn what_a_type_is_called_says_how_its_values_are_written() {
    let cases: [(u32, u8, u32, &str, &str); 9] = [
        (25, b'S', 0, "so", r#""so""#),
        (16385, b'E', 0, "fine", r#""fine""#),
        (16385, 0, 0, "(1,2)", r#""(1,2)""#),
        (16386, b'A', 16385, r#"{fine,NULL,"so \"so\""}"#, r#"["fine",null,"so \"so\""]"#),
        (1007, b'A', 23, "[2:3]={1,NULL}", "[1,null]"),
        (1020, b'A', 603, "{(2,2),(1,1);(4,4),(3,3)}", r#"["(2,2),(1,1)","(4,4),(3,3)"]"#),
        (22, b'A', 21, "1 2 3", r#""1 2 3""#),
        (1700, b'N', 0, "1.50", r#""1.50""#),
        (16, b'B', 0, "maybe", r#""maybe""#),
    ];
    for (oid, category, element, text, expected) in cases {
        let kind = Kind::of(oid, category, element);
        assert_eq!(of(|out| write(out, kind, text.as_bytes())), expected, "{oid}");
    }
}

#[test]
fn what_is_no_array_is_a_string() {
    let cases = [
        "",
        "{",
        "}",
        "1",
        "{1",
        "{1}2",
        "{1,}",
        "{,1}",
        "{}{}",
        "{{1}1}",
        "{1{2}}",
        r#"{"a}"#,
        r#"{"a\"#,
        "[1:2]",
        "{1;2",
        "{{{{{{{1}}}}}}}",
    ];
    for text in cases {
        let expected = of(|out| json::string(out, text.as_bytes()));
        assert_eq!(of(|out| write(out, Kind::Array(Scalar::Int4), text.as_bytes())), expected);
    }
}

#[test]
fn what_is_malformed_in_binary_leaves_nothing() {
    let array = |bytes: &[u8]| [&[0; 3], bytes].concat();
    let cases = [
        (Kind::One(Scalar::Int4), vec![0; 3], "it ends too early"),
        (Kind::One(Scalar::Int4), vec![0; 5], "more follows where it should end"),
        (Kind::One(Scalar::Jsonb), vec![2, b'1'], "a jsonb is of another version than 1"),
        (Kind::One(Scalar::Time), vec![255; 8], "a time lies outside of the day"),
        (Kind::One(Scalar::Bits), vec![127, 255, 255, 255, 0], "it ends too early"),
        (Kind::One(Scalar::Network), vec![2, 32, 0, 3, 1, 2, 3], "an address has neither 4 nor 16 bytes"),
        (Kind::One(Scalar::Mac), vec![0; 7], "a MAC address has neither 6 nor 8 bytes"),
        (Kind::One(Scalar::Numeric), vec![0, 0, 0, 0, 1, 0, 0, 0], "a numeric has an unknown sign"),
        (
            Kind::One(Scalar::Numeric),
            vec![0, 1, 0, 0, 0, 0, 0, 0, 255, 255],
            "a group has more than four digits",
        ),
        (Kind::Array(Scalar::Int4), array(&[7, 0, 0, 0, 0, 0, 0, 0, 23]), "an array has too many dimensions"),
        (
            Kind::Vector,
            array(&[1, 0, 0, 0, 0, 0, 0, 0, 21, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9]),
            "an element is none of a vector",
        ),
    ];
    for (kind, bytes, what) in cases {
        let mut out = String::from("before");
        let error = write_binary(&mut out, kind, &bytes).unwrap_err();
        assert_eq!((error.what, error.tag, out.as_str()), (what, None, "before"), "{kind:?}");
    }
    let mut out = String::new();
    write_binary(&mut out, Kind::of(600, b'G', 0), &[0x0a, 0x1b]).unwrap();
    assert_eq!(out, r#""\\x0a1b""#);
}

fn of(write: impl FnOnce(&mut String)) -> String {
    let mut out = String::from("before ");
    write(&mut out);
    out.strip_prefix("before ").unwrap().to_string()
}

fn of_binary(kind: Kind, digits: &str) -> String {
    let bytes = unhex(digits);
    of(|out| write_binary(out, kind, &bytes).unwrap_or_else(|error| panic!("{kind:?} {digits}: {error}")))
}

fn kind(sql: &mut Sql, name: &str) -> Kind {
    let asked = format!("SELECT oid, typcategory, typelem FROM pg_type WHERE oid = $t${name}$t$::regtype");
    let [oid, category, element] = &sql.rows::<3>(&asked)[0];
    Kind::of(oid.parse().unwrap(), category.as_bytes()[0], element.parse().unwrap())
}

#[test]
fn both_forms_of_a_value_give_the_json_of_the_outbox() {
    let server = start_server(&[]);
    let mut sql = Sql::connect(&server);
    sql.run(&crate::install::install());
    sql.run("CREATE TYPE mood AS ENUM ('fine', 'so \"so\"', 'élan')");
    sql.run("SET DateStyle = ISO; SET IntervalStyle = postgres; SET TimeZone = UTC; SET bytea_output = hex");
    sql.run("SET extra_float_digits = 3; SET client_encoding = UTF8");
    let mut random = Random::seeded();
    many_floats(&mut sql, &mut random);
    for (name, edges, some) in SAMPLES {
        let mut values: Vec<String> = edges.iter().map(|edge| edge.to_string()).collect();
        values.extend((0..RANDOM_VALUES).map(|_| some(&mut random)));
        sql.run(&format!("CREATE TEMP TABLE sample (place serial, v {name})"));
        let rows: Vec<String> = values.iter().map(|value| format!("($v${value}$v$)")).collect();
        sql.run(&format!("INSERT INTO sample (v) VALUES {}", rows.join(",")));
        one_by_one(&mut sql, name, values.len());
        in_arrays(&mut sql, name);
        sql.run("DROP TABLE sample");
    }
}

fn one_by_one(sql: &mut Sql, name: &str, count: usize) {
    let kind = kind(sql, name);
    let asked = format!(
        "SELECT pgwake.value_expression(oid, 'v'), typsend FROM pg_type WHERE oid = $t${name}$t$::regtype"
    );
    let [expression, send] = &sql.rows::<2>(&asked)[0];
    let asked = format!("SELECT encode({send}(v), 'hex'), format('%s', v), ({expression})::text FROM sample");
    let rows = sql.rows::<3>(&asked);
    assert_eq!(rows.len(), count);
    for [bytes, text, expected] in rows {
        let is_json = name.starts_with("json");
        let expected = if is_json { expected.replace(['\n', '\t', '\r'], " ") } else { expected };
        assert_eq!(of(|out| write(out, kind, text.as_bytes())), expected, "{name} as text: {text}");
        assert_eq!(of_binary(kind, &bytes), expected, "{name} in binary: {text}, {bytes}");
    }
}

/// All powers of two, whose neighbours are not equally far away; and where fewer digits lie just halfway to
/// the next number, or the last digit is a five.
fn many_floats(sql: &mut Sql, random: &mut Random) {
    sql.rows::<1>(&format!("SELECT setseed({})", random.below(1 << 20) as f64 / f64::from(1 << 20)));
    for (name, kind, lowest, highest, range) in [
        ("float4", Kind::One(Scalar::Float4), -126, 127, "22 + 20 * random()"),
        ("float8", Kind::One(Scalar::Float8), -1022, 1023, "51 + 30 * random()"),
    ] {
        let asked = format!(
            "SELECT encode({name}send(v), 'hex'), v::text FROM (
                SELECT power(2::float8, k)::{name} FROM generate_series({lowest}, {highest}) k
                UNION ALL SELECT (random() * power(2, {range}))::{name} FROM generate_series(1, {MANY})
                UNION ALL SELECT (floor(random() * 65536) / power(2, floor(random() * 70)))::{name}
                    FROM generate_series(1, {MANY})) f (v)"
        );
        for [bytes, text] in sql.rows::<2>(&asked) {
            assert_eq!(of_binary(kind, &bytes), text, "{name} {bytes}");
        }
    }
}

/// Arrays of all these values, of NULL, of two and three dimensions, and with lower bounds of their own.
fn in_arrays(sql: &mut Sql, name: &str) {
    let (element, array) = (kind(sql, name), kind(sql, &format!("{name}[]")));
    let texts = sql.rows::<1>("SELECT format('%s', v) FROM sample ORDER BY place");
    let all: Vec<String> =
        texts.iter().map(|[text]| of(|out| write(out, element, text.as_bytes()))).collect();
    let (first, last, listed) = (&all[0], &all[all.len() - 1], all.join(","));
    let cases = [
        ("all_of_them", format!("[{listed}]")),
        ("all_of_them || '{NULL,NULL}'", format!("[{listed},null,null]")),
        ("ARRAY[all_of_them, all_of_them]", format!("[[{listed}],[{listed}]]")),
        ("all_of_them[1:0]", "[]".to_string()),
        ("ARRAY[[[first]], [[last]]]", format!("[[[{first}]],[[{last}]]]")),
        ("array_fill(first, ARRAY[1, 2], ARRAY[-3, 7])", format!("[[{first},{first}]]")),
    ];
    for (expression, expected) in cases {
        let asked = format!(
            "SELECT encode(array_send(a), 'hex'), format('%s', a) FROM (SELECT {expression} AS a FROM (
                SELECT all_of_them, all_of_them[1] AS first, all_of_them[count] AS last FROM (
                    SELECT array_agg(v ORDER BY place) AS all_of_them, count(*) FROM sample) b) b) b"
        );
        let [bytes, text] = &sql.rows::<2>(&asked)[0];
        assert_eq!(of(|out| write(out, array, text.as_bytes())), expected, "{name}, {expression}: {text}");
        // Of an array's elements, no more is known than the OID of their type.
        if name != "mood" {
            assert_eq!(of_binary(array, bytes), expected, "{name}, {expression}: {text}, {bytes}");
        }
    }
}
