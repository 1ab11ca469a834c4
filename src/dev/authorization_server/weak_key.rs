//! A 1024-bit RSA key (`openssl genrsa 1024`) to sign tokens with that no verifier may accept.
//!
//! aws-lc-rs rightly neither makes nor loads a private key of this size, so that the one thing needed of it, PKCS #1
//! v1.5 signing, is written out here. Not in constant time, and the key is public: only ever for this fault.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::rsa;

pub(super) const KID: &str = "weak-1024-bit-key";

/// Big-endian 64-bit words.
type Number = [u64; WORDS];
const WORDS: usize = 16;
const BYTES: usize = WORDS * 8;
const MODULUS: Number = [
    0xb4cb_03f2_7671_aa41,
    0x58c9_7fdd_c05d_a71c,
    0x51ab_a642_b635_fd2b,
    0x4577_7914_1750_2dfa,
    0x36d1_02e3_152f_1216,
    0xceeb_15cb_0a06_fcc1,
    0x64b0_3ed7_01d9_a0bf,
    0x5a7f_adc0_ec8a_d651,
    0x3737_247f_ccee_d02c,
    0x7e6a_2796_400c_9dcc,
    0x044d_f94e_2502_7c6a,
    0x1d10_aab6_814f_0ad8,
    0xc467_f6da_93b8_5963,
    0xdad6_6e9e_b1f3_03f3,
    0xd997_356d_4fe9_7002,
    0x39bb_743d_67e8_d777,
];
const PRIVATE_EXPONENT: Number = [
    0x86db_e127_ddbe_4fd7,
    0xcad9_13ae_602d_fbd7,
    0x9dfc_425b_04fc_24cb,
    0x4058_2c53_1648_d2e3,
    0x103c_bcc0_932e_b779,
    0x9803_b80f_ea7c_e7d1,
    0x82c0_0d3f_e8bb_63b3,
    0x1958_a04d_86a4_d1d4,
    0x261b_24b8_10c3_38e1,
    0x067f_52b7_d655_570d,
    0xa73e_dbff_81af_2c23,
    0xf706_7214_dd92_38b3,
    0x3a77_bde5_4e43_1545,
    0x4405_dc53_6fd2_3b66,
    0x1b9a_d9c9_a548_1eca,
    0xe416_5d28_783e_5771,
];
const PUBLIC_EXPONENT: [u8; 3] = [1, 0, 1];

pub(super) fn jwk() -> Value {
    rsa::jwk(KID, &bytes(&MODULUS), &PUBLIC_EXPONENT)
}

/// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 8.2.1).
pub(super) fn sign(message: &[u8]) -> Vec<u8> {
    let padded = padded(digest(&SHA256, message).as_ref());
    bytes(&power(&number(&padded), &PRIVATE_EXPONENT)).to_vec()
}

/// EMSA-PKCS1-v1_5 (RFC 8017 9.2): 00 01 FF .. FF 00, then the name of the hash and the hash.
fn padded(hash: &[u8]) -> [u8; BYTES] {
    const SHA256_INFO: [u8; 19] = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
        0x04, 0x20,
    ];
    let mut block = [0xff; BYTES];
    let tail = [&[0][..], &SHA256_INFO, hash].concat();
    for (to, from) in block.iter_mut().zip([0, 1]) {
        *to = from;
    }
    for (to, from) in block.iter_mut().rev().zip(tail.into_iter().rev()) {
        *to = from;
    }
    block
}

/// `base ^ exponent mod MODULUS`, bit by bit, in Montgomery's form.
fn power(base: &Number, exponent: &Number) -> Number {
    let one = small(1);
    // 2 ^ 2048 mod MODULUS takes a number into that form.
    let square = (0..2 * BYTES * 8).fold(one, |number, _| reduced_sum(&number, &number));
    let base = product(base, &square);
    let mut result = product(&one, &square);
    for bit in exponent.iter().flat_map(|word| (0..64).rev().map(move |place| (word >> place) & 1 == 1)) {
        result = product(&result, &result);
        if bit {
            result = product(&result, &base);
        }
    }
    product(&result, &one)
}

/// `a * b / 2 ^ 1024 mod MODULUS` (Montgomery's product): before each shift by a word, a multiple of the modulus is
/// added that makes the word zero.
fn product(a: &Number, b: &Number) -> Number {
    let (mut sum, mut top) = ([0; WORDS], 0_u128);
    for word in b.iter().rev() {
        top += add_product(&mut sum, a, *word);
        let lowest = sum.last().copied().unwrap_or_default();
        top += add_product(&mut sum, &MODULUS, lowest.wrapping_mul(NEGATIVE_INVERSE));
        sum.rotate_right(1);
        if let Some(highest) = sum.first_mut() {
            *highest = low_word(top);
        }
        top >>= 64;
    }
    if top > 0 || sum >= MODULUS { less_modulus(sum) } else { sum }
}

/// `sum += a * word`; answers what is carried out of it.
fn add_product(sum: &mut Number, a: &Number, word: u64) -> u128 {
    let mut carry = 0;
    for (to, a) in sum.iter_mut().zip(a).rev() {
        let term = u128::from(*to) + u128::from(*a) * u128::from(word) + carry;
        (*to, carry) = (low_word(term), term >> 64);
    }
    carry
}

/// `a + b mod MODULUS` for two numbers below it.
fn reduced_sum(a: &Number, b: &Number) -> Number {
    let mut sum = [0; WORDS];
    let mut carry = false;
    for ((to, a), b) in sum.iter_mut().zip(a).zip(b).rev() {
        let (low, first) = a.overflowing_add(*b);
        let (low, second) = low.overflowing_add(u64::from(carry));
        (*to, carry) = (low, first || second);
    }
    if carry || sum >= MODULUS { less_modulus(sum) } else { sum }
}

fn less_modulus(mut number: Number) -> Number {
    let mut borrow = false;
    for (to, modulus) in number.iter_mut().zip(&MODULUS).rev() {
        let (low, first) = to.overflowing_sub(*modulus);
        let (low, second) = low.overflowing_sub(u64::from(borrow));
        (*to, borrow) = (low, first || second);
    }
    number
}

/// `-1 / MODULUS mod 2 ^ 64`: each step of Newton's doubles the bits that are right, from the three that any odd number
/// has.
const NEGATIVE_INVERSE: u64 = {
    let [.., lowest] = MODULUS;
    let mut inverse = lowest;
    let mut bits = 3;
    while bits < 64 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(lowest.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse.wrapping_neg()
};

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn low_word(number: u128) -> u64 {
    number as u64
}

fn small(word: u64) -> Number {
    let mut number = [0; WORDS];
    if let Some(lowest) = number.last_mut() {
        *lowest = word;
    }
    number
}

fn bytes(number: &Number) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (to, from) in bytes.iter_mut().zip(number.iter().flat_map(|word| word.to_be_bytes())) {
        *to = from;
    }
    bytes
}

fn number(bytes: &[u8; BYTES]) -> Number {
    let mut number = [0; WORDS];
    let (words, _no_rest) = bytes.as_chunks::<8>();
    for (to, from) in number.iter_mut().zip(words) {
        *to = u64::from_be_bytes(*from);
    }
    number
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RsaPublicKeyComponents};

    use super::*;

    #[test]
    fn the_signature_is_right_although_the_key_is_too_short() {
        let public = RsaPublicKeyComponents { n: &bytes(&MODULUS)[..], e: &PUBLIC_EXPONENT[..] };
        let signature = sign(b"message");
        public.verify(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, b"message", &signature).unwrap();
        public.verify(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, b"massage", &signature).unwrap_err();
    }
}
