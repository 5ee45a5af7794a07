//! Tests of `pickle`.

use super::*;

/// A value in Python's notation, with the values that it refers to; `_` for an ignored value.
fn show(pickle: &Pickle, value: &Value) -> String {
    let list =
        |ids: &[Id]| ids.iter().map(|id| show(pickle, pickle.value(*id))).collect::<Vec<_>>().join(", ");
    match value {
        Value::Int(number) => number.to_string(),
        Value::Text(text) => format!("'{text}'"),
        Value::Tuple(items) => format!("({})", list(items)),
        Value::List(items) => format!("[{}]", list(items)),
        Value::Dict(items) => {
            let items = items.iter().map(|(key, value)| format!("{}: {}", list(&[*key]), list(&[*value])));
            format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
        }
        Value::Global(global) => format!("{global:?}"),
        Value::Storage(Storage { number, key, len }) => format!("storage {key} of {len} {number:?}"),
        Value::Tensor(Tensor { storage, offset, shape, stride }) => {
            format!("{shape:?} by {stride:?} from {offset} of storage {} of {}", storage.key, storage.len)
        }
        Value::Opaque(class) => format!("object of {}", pickle.class(*class)),
        Value::Other => "_".into(),
    }
}

fn read(bytes: &[u8]) -> String {
    let (pickle, taken) = Pickle::read(bytes).unwrap();
    assert_eq!(taken, bytes.len());
    show(&pickle, pickle.root())
}

fn refused(bytes: &[u8]) -> String {
    Pickle::read(bytes).err().unwrap_or_else(|| panic!("{bytes:x?} is read"))
}

/// `pickle.dumps(value, protocol)` of Python 3.11 for `{"a": [1, 2], "b": (3, 4, 5), "c": (300, 70000, -5,
/// 2**40), "d": OrderedDict([("x", 1)]), "e": 1.5, "f": None, "g": True, "h": [], "i": (), "k": (1,), "l":
/// (1, 2)}`.
const PROTOCOL_2: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01K\x02eX\x01\x00\x00\x00bq\x03\
    K\x03K\x04K\x05\x87q\x04X\x01\x00\x00\x00cq\x05(M,\x01Jp\x11\x01\x00J\xfb\xff\xff\xff\
    \x8a\x06\x00\x00\x00\x00\x00\x01tq\x06X\x01\x00\x00\x00dq\x07ccollections\nOrderedDict\nq\x08)Rq\t\
    X\x01\x00\x00\x00xq\nK\x01sX\x01\x00\x00\x00eq\x0bG?\xf8\x00\x00\x00\x00\x00\x00X\x01\x00\x00\x00fq\x0cN\
    X\x01\x00\x00\x00gq\r\x88X\x01\x00\x00\x00hq\x0e]q\x0fX\x01\x00\x00\x00iq\x10)X\x01\x00\x00\x00kq\x11K\x01\
    \x85q\x12X\x01\x00\x00\x00lq\x13K\x01K\x02\x86q\x14u.";
const PROTOCOL_4: &[u8] = b"\x80\x04\x95\x99\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01K\x02e\
    \x8c\x01b\x94K\x03K\x04K\x05\x87\x94\x8c\x01c\x94(M,\x01Jp\x11\x01\x00J\xfb\xff\xff\xff\
    \x8a\x06\x00\x00\x00\x00\x00\x01t\x94\x8c\x01d\x94\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94\
    \x8c\x01x\x94K\x01s\x8c\x01e\x94G?\xf8\x00\x00\x00\x00\x00\x00\x8c\x01f\x94N\x8c\x01g\x94\x88\x8c\x01h\x94]\x94\
    \x8c\x01i\x94)\x8c\x01k\x94K\x01\x85\x94\x8c\x01l\x94K\x01K\x02\x86\x94u.";

#[test]
fn python_pickles_are_read() {
    let expected = "{'a': [1, 2], 'b': (3, 4, 5), 'c': (300, 70000, -5, 1099511627776), 'd': {'x': 1}, \
                    'e': _, 'f': _, 'g': _, 'h': [], 'i': (), 'k': (1), 'l': (1, 2)}";
    assert_eq!(read(PROTOCOL_2), expected);
    assert_eq!(read(PROTOCOL_4), expected);
}

#[test]
fn bytes_after_stop_are_not_consumed() {
    let (pickle, taken) = Pickle::read(b"K\x07.K\x08.").unwrap();
    assert_eq!((show(&pickle, pickle.root()).as_str(), taken), ("7", 3));
}

#[test]
fn every_opcode_is_interpreted_as_in_pickletools() {
    for (bytes, expected) in [
        (&b"K\xff."[..], "255"),
        (b"M\xff\xff.", "65535"),
        (b"J\x00\x00\x00\x80.", "-2147483648"),
        // LONG1: two's complement of any length, the sign in the last byte.
        (b"\x8a\x00.", "0"),
        (b"\x8a\x01\x80.", "-128"),
        (b"\x8a\x02\x80\x00.", "128"),
        (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", "9223372036854775807"),
        (b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.", "_"),
        (b"\x89.", "_"),
        // Strings with lengths of one byte and of four bytes.
        (b"U\x02ab.", "'ab'"),
        (b"C\x02ab.", "'ab'"),
        (b"\x8c\x02ab.", "'ab'"),
        (b"X\x02\x00\x00\x00ab.", "'ab'"),
        // POP and POP_MARK.
        (b"K\x01K\x020.", "1"),
        (b"K\x01(K\x02K\x031.", "1"),
        // APPEND, APPENDS, SETITEM, SETITEMS, in any order.
        (b"]K\x01a(K\x02K\x03eK\x04a.", "[1, 2, 3, 4]"),
        (b"}K\x01K\x02s(K\x03K\x04K\x05K\x06u.", "{1: 2, 3: 4, 5: 6}"),
        // Marks nest.
        (b"(K\x01(K\x02K\x03tK\x04t.", "(1, (2, 3), 4)"),
        (b"K\x01K\x02K\x03\x86\x86.", "(1, (2, 3))"),
        // BINPUT and BINGET, LONG_BINPUT and LONG_BINGET, MEMOIZE, which counts from 0.
        (b"K\x01q\x05K\x02q\x060h\x05.", "1"),
        (b"K\x01r\x05\x01\x00\x00K\x02q\x050j\x05\x01\x00\x00.", "1"),
        (b"K\x01\x94K\x02\x94h\x00h\x01\x87.", "(2, 1, 2)"),
        // BUILD ignores the state.
        (b"K\x01}b.", "1"),
        // FRAME has a length of eight bytes.
        (b"\x95\x02\x00\x00\x00\x00\x00\x00\x00K\x01.", "1"),
    ] {
        assert_eq!(read(bytes), expected, "{}", bytes.escape_ascii());
    }
}

/// A storage of 12 values with the key 3, and the start of a call that makes a tensor.
const STORAGE: &[u8] = b"(U\x07storagectorch\nFloatStorage\nU\x013U\x03cpuK\x0ctQ";
const TENSOR: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n(";

#[test]
fn torch_tensors_and_storages_are_rebuilt() {
    assert_eq!(read(&[STORAGE, b"."].concat()), "storage 3 of 12 F32");
    // `_rebuild_tensor_v2(storage, 2, (3, 2), (1, 5), False, OrderedDict())`.
    let tensor = [TENSOR, STORAGE, b"K\x02K\x03K\x02\x86K\x01K\x05\x86\x89NtR"].concat();
    let expected = "[3, 2] by [1, 5] from 2 of storage 3 of 12";
    assert_eq!(read(&[&tensor[..], b"."].concat()), expected);
    // `_rebuild_parameter(tensor, True, OrderedDict())`.
    let parameter = [b"ctorch._utils\n_rebuild_parameter\n(", &tensor[..], b"\x88NtR."].concat();
    assert_eq!(read(&parameter), expected);
    // `torch.Size((3, 2))`, and `_rebuild_tensor` of old versions, with lists.
    assert_eq!(read(b"ctorch\nSize\nK\x03K\x02\x86\x85R."), "(3, 2)");
    let old = [b"ctorch._utils\n_rebuild_tensor\n(", STORAGE, b"K\x00](K\x06e](K\x02etR."].concat();
    assert_eq!(read(&old), "[6] by [2] from 0 of storage 3 of 12");
    assert_eq!(read(b"ccollections\nOrderedDict\n)R."), "{}");
}

#[test]
fn storage_classes_map_to_number_kinds() {
    for (class, number) in [
        ("FloatStorage", Number::F32),
        ("DoubleStorage", Number::F64),
        ("HalfStorage", Number::F16),
        ("BFloat16Storage", Number::Bf16),
        ("LongStorage", Number::Other(8)),
        ("IntStorage", Number::Other(4)),
        ("ByteStorage", Number::Other(1)),
        ("BoolStorage", Number::Other(1)),
        ("CharStorage", Number::Other(1)),
        ("ShortStorage", Number::Other(2)),
        ("ComplexFloatStorage", Number::Other(8)),
        ("QInt8Storage", Number::Other(1)),
    ] {
        let line = read(format!("ctorch\n{class}\n.").as_bytes());
        assert_eq!(line, format!("Storage({number:?})"));
        // Protocol 4 takes the name from the stack.
        let named = [&b"U\x05torchU"[..], &[class.len() as u8], class.as_bytes(), b"\x93."].concat();
        assert_eq!(read(&named), line);
    }
}

#[test]
fn tensors_of_an_unknown_storage_are_opaque() {
    let storage = b"(U\x07storagectorch\nNewStorage\nU\x013U\x03cpuK\x0ctQ";
    let tensor = [TENSOR, storage, b"K\x00K\x06\x85K\x01\x85tR."].concat();
    assert_eq!(read(&tensor), "object of torch.NewStorage");
}

#[test]
fn all_storages_of_a_pickle_are_listed() {
    let other = b"(U\x07storagectorch\nHalfStorage\nU\x014U\x03cpuK\x01tQ";
    let two = [b"(", STORAGE, other, b"t."].concat();
    let (pickle, _) = Pickle::read(&two).unwrap();
    let keys: Vec<&str> = pickle.storages().map(|storage| storage.key.as_str()).collect();
    assert_eq!(keys, ["3", "4"]);
}

#[test]
fn other_classes_are_opaque_and_not_executed() {
    // Called, made by NEWOBJ and NEWOBJ_EX, with BUILD, and with items.
    assert_eq!(read(b"cposix\nsystem\nU\x03cmd\x85R."), "object of posix.system");
    let object = "object of argparse.Namespace";
    assert_eq!(read(b"cargparse\nNamespace\n)\x81}U\x01aK\x01sb."), object);
    assert_eq!(read(b"cargparse\nNamespace\n)}\x92K\x01a(K\x01K\x02u."), object);
    assert_eq!(read(b"U\x08argparseU\x09Namespace\x93)\x81."), object);
    assert_eq!(read(b"ccollections\nOrderedDict\n)\x81U\x01xK\x01s."), "{'x': 1}");
    assert_eq!(refused(b"K\x01K\x02\x93."), "the name of a function is not a string");
    // A set and a frozen set, a long integer, long text, bytes of every length code.
    assert_eq!(read(b"\x8f(K\x01K\x02\x90."), "[1, 2]");
    assert_eq!(read(b"(K\x01\x91."), "[1]");
    assert_eq!(read(b"\x8b\x02\0\0\0\x2c\x01."), "300");
    assert_eq!(read(b"(C\x01aB\x01\0\0\0b\x8e\x01\0\0\0\0\0\0\0ct."), "('a', 'b', 'c')");
    assert_eq!(read(b"K\x012\x86."), "(1, 1)");
}

#[test]
fn repeated_calls_take_no_memory() {
    // A long tuple as `torch.Size`, and as the arguments of calls, again and again.
    let long = [&b"("[..], &b"K\x01".repeat(50_000), b"tq\x00"].concat();
    let sizes = b"ctorch\nSize\nh\x00\x85R0".repeat(2000);
    let calls = b"ccollections\nOrderedDict\nh\x00R0".repeat(2000);
    assert_eq!(read(&[&long[..], b"0", &sizes, &calls, b"K\x07."].concat()), "7");
}

#[test]
fn invalid_tensor_arguments_are_rejected() {
    let bad = "the arguments of a tensor are not storage, offset, shape and stride";
    for arguments in [
        &b"K\x01K\x00K\x06\x85K\x01\x85"[..],
        // A negative offset; an offset and a side that are not numbers.
        &[STORAGE, b"J\xff\xff\xff\xffK\x06\x85K\x01\x85"].concat(),
        &[STORAGE, b"NK\x06\x85K\x01\x85"].concat(),
        &[STORAGE, b"K\x00N\x85K\x01\x85"].concat(),
        // Two sides and one stride; nine sides; a shape that is a number; no stride.
        &[STORAGE, b"K\x00K\x03K\x02\x86K\x01\x85"].concat(),
        &[STORAGE, b"K\x00(", &b"K\x01".repeat(9), b"t(", &b"K\x01".repeat(9), b"t"].concat(),
        &[STORAGE, b"K\x00K\x06K\x01\x85"].concat(),
        &[STORAGE, b"K\x00K\x06\x85"].concat(),
    ] {
        assert_eq!(refused(&[TENSOR, arguments, b"tR."].concat()), bad, "{}", arguments.escape_ascii());
    }
    let eight = [STORAGE, b"K\x00(", &b"K\x01".repeat(8), b"t(", &b"K\x01".repeat(8), b"t"].concat();
    assert!(read(&[TENSOR, &eight, b"tR."].concat()).starts_with("[1, 1, 1, 1, 1, 1, 1, 1] by"));
}

#[test]
fn invalid_persistent_ids_are_rejected() {
    let bad = "a persistent id does not refer to a storage";
    for id in [
        &b"K\x01"[..],
        b"(U\x06modulectorch\nFloatStorage\nU\x013U\x03cpuK\x0ct",
        b"(U\x07storageU\x01xU\x013U\x03cpuK\x0ct",
        b"(U\x07storagectorch\nSize\nU\x013U\x03cpuK\x0ct",
        b"(U\x07storagectorch\nFloatStorage\nK\x03U\x03cpuK\x0ct",
        b"(U\x07storagectorch\nFloatStorage\nU\x013U\x03cpuJ\xff\xff\xff\xfft",
        b"(U\x07storagectorch\nFloatStorage\nU\x013U\x03cput",
    ] {
        assert_eq!(refused(&[id, b"Q."].concat()), bad, "{}", id.escape_ascii());
    }
    let keyed = |length: usize| {
        let key = [&[b'U', length as u8][..], &vec![b'k'; length]].concat();
        [b"(U\x07storagectorch\nFloatStorage\n", &key[..], b"U\x03cpuK\x0ctQ."].concat()
    };
    assert!(read(&keyed(MAX_KEY)).ends_with(" of 12 F32"));
    assert_eq!(refused(&keyed(MAX_KEY + 1)), bad);
}

#[test]
fn damaged_pickles_are_rejected_with_a_reason() {
    for (bytes, reason) in [
        (&b""[..], "it is truncated"),
        (b"K", "it is truncated"),
        (b"K\x01", "it is truncated"),
        (b"X\x05\x00\x00\x00abcd", "it is truncated"),
        (b".", "the stack is empty"),
        (b"0.", "the stack is empty"),
        (b"K\x01\x86.", "the stack is empty"),
        (b"q\x00.", "the stack is empty"),
        (b"a.", "the stack is empty"),
        (b"K\x01a.", "the stack is empty"),
        (b"t.", "there is no mark"),
        (b"K\x01(0t.", "the mark is beyond the stack"),
        (b"h\x00.", "the memo has no such value"),
        (b"}K\x01a.", "cannot append: not a list, or the list is full"),
        (b"]K\x01K\x02s.", "cannot set items: not a dictionary, or the items are invalid"),
        (b"}(K\x01u.", "cannot set items: not a dictionary, or the items are invalid"),
        (b"K\x01)R.", "a value is called that is not a function"),
        (b"ccollections\nOrderedDict\nK\x01R.", "the arguments of a call are not a tuple"),
        (b"ctorch\nSize\n)R.", "a call has no arguments"),
        (b"ctorch\nFloatStorage\n)R.", "a value is called that is not a function"),
        (b"ctorch", "a name has no end"),
        (b"\x81.", "the stack is empty"),
        (b"i", "pickle opcode 0x69 is not allowed"),
    ] {
        assert_eq!(refused(bytes), reason, "{}", bytes.escape_ascii());
    }
}

#[test]
fn strings_values_stack_and_memo_are_limited() {
    let text = |length: u32| [b"X", &length.to_le_bytes()[..], &vec![b'a'; length as usize], b"."].concat();
    assert_eq!(read(&text(MAX_TEXT as u32)).len(), MAX_TEXT + 2);
    assert_eq!(read(&text(MAX_TEXT as u32 + 1)), "_");
    // A name has at most 999 bytes before its newline.
    let name = |length: usize| [b"c", &vec![b'm'; length][..], b"\nf\n."].concat();
    assert!(read(&name(999)).starts_with("Unknown"));
    assert_eq!(refused(&name(1000)), "a name has no end");
    // The maximum number of values; more; and one value pushed that often from the memo.
    let most = [&b"("[..], &b"N".repeat(MAX_VALUES - 1), b"t."].concat();
    assert!(Pickle::read(&most).is_ok());
    let values = [b"(", &b"N".repeat(MAX_VALUES + 1)[..], b"t."].concat();
    assert_eq!(refused(&values), "it has more than 262144 values");
    let popped = [&b"N0".repeat(MAX_VALUES)[..], b"N."].concat();
    assert_eq!(refused(&popped), "it has more than 262144 values");
    let recalled = [b"Nq\x00(", &b"h\x00".repeat(MAX_VALUES)[..], b"t."].concat();
    assert_eq!(refused(&recalled), "the stack is too deep");
    let remembered: Vec<u8> =
        (0..=MAX_VALUES as u32).flat_map(|i| [b"r", &i.to_le_bytes()[..]].concat()).collect();
    assert_eq!(refused(&[b"N", &remembered[..], b"."].concat()), "the memo is too large");
    // A list that grows by values from the memo.
    let half =
        [b"Nq\x00]", &[b"(", &b"h\x00".repeat(MAX_VALUES / 2)[..], b"e"].concat().repeat(2)[..]].concat();
    assert!(Pickle::read(&[&half[..], b"."].concat()).is_ok());
    let more = [&half[..], b"h\x00a."].concat();
    assert_eq!(refused(&more), "cannot append: not a list, or the list is full");
}
