//! The two-character escapes of file names.
//!
//! They follow no formula. This is what servers of 10.5 to 11.8 answer for every code point of the
//! basic plane; the three agree.

/// No two-character escape.
const NONE: &[u8] = b"--";

/// First code point of a row, and two characters for each of its 64 code points.
#[rustfmt::skip]
const ROWS: [(u16, &str); 30] = [
    (0x00c0, "0G0H0I0J0K0L0M0N0O0P0Q0R0S0T0U0V0W0X0Y0Z1G1H1I--1K1L1M1N1O1P1Q1j0g0h0i0j0k0l0m0n0o0p0q0r0s0t0u0v0w0x0y0z1g1h1i--1k1l1m1n1o1p1q1r"),
    (0x0100, "1S1s1T1t1U1u1V1v1W1w1X1x1Y1y1Z1z2G2g2H2h2I2i2J2j2K2k2L2l2M2m2N2n2O2o2P2p2Q2q2R2r2S2s2T2t2U2u2V2v--2w2X2x2Y2y2Z2z3g3H3h3I3i3J3j3K"),
    (0x0140, "3k3L3l3M3m3N3n3O3o3p3Q3q3R3r3S3s3T3t3U3u3V3v3W3w3X3x3Y3y3Z3z4G4g4H4h4I4i4J4j4K4k4L4l4M4m4N4n4O4o4P4p4Q4q4R4r4S4s1R4T4t4U4u4V4v4w"),
    (0x0180, "gaQfHahaIaiaRfJajaTfUfKakalaZbWfYfMamaJgMgnaSgRgOaoapaqaYgHhraKhSasaTataUauaVhVavaYhwaxaYayaJiZazaLiMiGbgbHbhbTiIbibjbkbNbnbmb--"),
    (0x01c0, "--------Ob--obPb--pbQb--qbRbrbSbsbTbtbUbubVbvbWbwbXbxbYbybzbGcgcHchcIcicJcjcKckcLclcMcmcNcncOcocpcQc--qcRcrcNa--ScscTctcUcucVcvc"),
    (0x0200, "WcwcXcxcYcycZczcGdgdHdhdIdidJdjdKdkdLdldMdmdNdndOdodPdpdQdqdRdrdRasdTdtdUdudVdvdWdwdXdxdYdydZdzdGegeHeheiejekelemeneOePepePaQere"),
    (0x0240, "seVi----------------------------nfofpfqfrfsftfufvfwfxfyfzfgghgigjgkglgmgngogpgqgrgsgtgugvgwgxgygzgghhhihjhkhlhmhnhohphqhrhshthuh"),
    (0x0280, "vhwhxhyhzhgihiiijikiliminioipiqirisitiuiviwixiyizigjhjijjjkjljmjnjojpjqjrjsjtjujvjwjxjyjzjgkhkik--------------------------------"),
    (0x0380, "------------6G--6H6I6J--7S--7T7U5y6L7W6N6O6P6Q6R7X6T8W6V6W6X6Y6Z8I7H--8Y7K7L8H7N7O7P7Q7R6g6h6i6j6k6l6m6n6o6p6q6r6s6t6u6v6w6x6y6z"),
    (0x03c0, "7g7h7i7j7k7l7m7n7o7p7q7r7s7t7u--7w7x7Y7Z8G8h8i8j--8k8L8l8M8m8N8n8O8o8P8p8Q8q8R8r8S8s8T8t8U8u8V8v8w8x8y8z--9g9h--9i----9j9k9L9M9N"),
    (0x0400, "S1T1U1V1W1X1Y1Z1G2H2I2J2K2L2M2N2G0H0I0J0K0L0M0N0O0P0Q0R0S0T0U0V0W0X0Y0Z0G1H1I1J1K1L1M1N1O1P1Q1R1g0h0i0j0k0l0m0n0o0p0q0r0s0t0u0v0"),
    (0x0440, "w0x0y0z0g1h1i1j1k1l1m1n1o1p1q1r1s1t1u1v1w1x1y1z1g2h2i2j2k2l2m2n2O2o2P2p2Q2q2R2r2S2s2T2t2U2u2V2v2W2w2X2x2Y2y2Z2z2G3g3H3h3I3i3J3j3"),
    (0x0480, "K3k3----------------M3m3N3n3O3o3P3p3Q3q3R3r3S3s3T3t3U3u3V3v3W3w3X3x3Y3y3Z3z3G4g4H4h4I4i4J4j4K4k4L4l4M4m4N4n4O4o4P4p4Q4q4R4r4S4s4"),
    (0x04c0, "T4U4u4V4v4W4w4X4x4Y4y4Z4z4G5g5--I5i5J5j5K5k5L5l5M5m5N5n5O5o5P5p5Q5q5R5r5S5s5T5t5U5u5V5v5W5w5X5x5Y5y5Z5z5G6g6H6h6I6i6------------"),
    (0x0500, "P6p6Q6q6R6r6S6s6T6t6U6u6V6v6W6w6------------------------------------------------------------------H7I7J7K7L7M7N7O7P7Q7R7S7T7U7V7"),
    (0x0540, "W7X7Y7Z7G8H8I8J8K8L8M8N8O8P8Q8R8S8T8U8V8W8X8----------------------h7i7j7k7l7m7n7o7p7q7r7s7t7u7v7w7x7y7z7g8h8i8j8k8l8m8n8o8p8q8r8"),
    (0x0580, "s8t8u8v8w8x8--------------------------------------------------------------------------------------------------------------------"),
    (0x1e00, "GlglHlhlIlilJljlKlklLlllMlmlNlnlOlolPlplQlqlRlrlSlslTltlUlulVlvlWlwlXlxlYlylZlzlGmgmHmhmImimJmjmKmkmLmlmMmmmNmnmOmomPmpmQmqmRmrm"),
    (0x1e40, "SmsmTmtmUmumVmvmWmwmXmxmYmymZmzmGngnHnhnIninJnjnKnknLnlnMnmnNnnnGponPnpnQnqnRnrnSnsnTntnUnunVnvnWnwnXnxnYnynZnznGogoHohoIoioJojo"),
    (0x1e80, "KokoLoloMomoNonoOoooPopoQoqoRoroSosoTotoUouovowoxoyozogp--------LplpMpmpNpnpOpopPpppQpqpRprpSpspTptpUpupVpvpWpwpXpxpYpypZpzpGqgq"),
    (0x1ec0, "HqhqIqiqJqjqKqkqLqlqMqmqNqnqOqoqPqpqQqqqRqrqSqsqTqtqUquqVqvqWqwqXqxqYqyqZqzqGrgrHrhrIrirJrjrKrkrLrlrMrmrNrnrOrorPrpr------------"),
    (0x1f00, "gshsisjskslsmsnsGsHsIsJsKsLsMsNsospsqsrsssts----OsPsQsRsSsTs----yszsgthtitjtktltYsZsGtHtItJtKtLtmtntotptqtrtstttMtNtOtPtQtRtStTt"),
    (0x1f40, "utvtwtxtytzt----UtVtWtXtYtZt----kulumunuoupuquru--Lu--Nu--Pu--RuwuxuyuzugvhvivjvWuXuYuZuGvHvIvJvkvlvmvnvovpvqvrvsvtvuvvvwvxv----"),
    (0x1f80, "gwhwiwjwkwlwmwnwGwHwIwJwKwLwMwNwowpwqwrwswtwuwvwOwPwQwRwSwTwUwVwwwxwywzwgxhxixjxWwXwYwZwGxHxIxJxkxlxmxnxox--qxrxKxLxKvLvNx------"),
    (0x1fc0, "----sxtxux--wxxxMvNvOvPvTx------yxzxgyhy----kylyYxZxQvRv--------nyoypyqyrysytyuyNyOyUvVvSy----------xyyy----hzizSvTvWvXvYy------"),
    (0x2140, "----------------------------------------------------------------G9H9I9J9K9L9M9N9O9P9Q9R9S9T9U9V9g9h9i9j9k9l9m9n9o9p9q9r9s9t9u9v9"),
    (0x2480, "------------------------------------------------------------------------------------------------------------@A@B@C@D@E@F@G@H@I@J"),
    (0x24c0, "@K@L@M@N@O@P@Q@R@S@T@U@V@W@X@Y@Z@a@b@c@d@e@f@g@h@i@j@k@l@m@n@o@p@q@r@s@t@u@v@w@x@y@z--------------------------------------------"),
    (0xff00, "------------------------------------------------------------------A@B@C@D@E@F@G@H@I@J@K@L@M@N@O@P@Q@R@S@T@U@V@W@X@Y@Z@----------"),
    (0xff40, "--a@b@c@d@e@f@g@h@i@j@k@l@m@n@o@p@q@r@s@t@u@v@w@x@y@z@--------------------------------------------------------------------------"),
];

/// The two characters that stand for `code`, if it has a short escape.
pub(super) fn escape(code: u16) -> Option<&'static str> {
    let row = ROWS.partition_point(|(first, _)| *first <= code).checked_sub(1)?;
    let (first, escapes) = ROWS.get(row)?;
    let column = usize::from(code - first);
    let escape = escapes.get(2 * column..2 * column + 2)?;
    (escape.as_bytes() != NONE).then_some(escape)
}

/// The code point that `escape` stands for.
pub(super) fn unescape(escape: [u8; 2]) -> Option<u16> {
    if escape == NONE {
        return None;
    }
    ROWS.iter().find_map(|(first, escapes)| {
        let (pairs, _) = escapes.as_bytes().as_chunks::<2>();
        let column = pairs.iter().position(|pair| *pair == escape)?;
        Some(first + u16::try_from(column).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: usize = 64;

    #[test]
    fn rows_are_whole_and_in_order() {
        assert!(ROWS.iter().all(|(_, escapes)| escapes.len() == 2 * ROW && escapes.is_ascii()));
        assert!(ROWS.is_sorted_by(|(a, _), (b, _)| usize::from(*a) + ROW <= usize::from(*b)));
    }

    #[test]
    fn every_escape_means_one_code_point() {
        let escaped = (0..=u16::MAX).filter(|&code| escape(code).is_some());
        assert_eq!(escaped.clone().count(), 1510);
        for code in escaped {
            let pair = escape(code).and_then(|pair| pair.as_bytes().try_into().ok());
            assert_eq!(pair.and_then(unescape), Some(code));
        }
    }
}
