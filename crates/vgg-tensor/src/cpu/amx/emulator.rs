//! AMX on processors without it, for tests: a signal handler decodes each tile instruction and computes it.
//!
//! With it, tests run the assembly of `hardware.rs` where only its vector instructions are supported. It decodes the
//! instructions by Intel's manual (volume 2, chapter 3.3) and knows nothing of the kernels.

use std::cell::RefCell;
use std::sync::Once;

use super::super::bf16::from_bf16;

/// Whether this process can run [`super::hardware`], after this call if the processor lacks only AMX.
pub(crate) fn install() -> bool {
    if super::hardware::detect().is_ok() {
        return true;
    }
    static HANDLER: Once = Once::new();
    if !super::hardware::has_vectors() {
        return false;
    }
    HANDLER.call_once(|| {
        // SAFETY: the handler has the signature of SA_SIGINFO; the structure is filled in before it is used.
        let status = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal_instruction as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut())
        };
        assert_eq!(status, 0, "cannot install a signal handler");
    });
    true
}

/// The tiles of a thread.
struct Tiles {
    rows: [u8; 8],
    row_bytes: [u16; 8],
    data: [[[u8; 64]; 16]; 8],
}

thread_local! {
    static TILES: RefCell<Tiles> =
        const { RefCell::new(Tiles { rows: [0; 8], row_bytes: [0; 8], data: [[[0; 64]; 16]; 8] }) };
}

/// A VEX-coded instruction with opcode map 0F38.
struct Instruction {
    opcode: u8,
    prefix: u8,
    /// Second source.
    vvvv: usize,
    /// `mod == 3`: the operand is the tile `rm`.
    register: bool,
    reg: usize,
    rm: usize,
    base: u64,
    /// The index register's value: bytes from row to row.
    stride: u64,
    len: u64,
}

extern "C" fn on_illegal_instruction(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes the interrupted thread's context, whose instruction pointer is readable code.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let registers = &mut context.uc_mcontext.gregs;
        let code = registers[libc::REG_RIP as usize] as *const u8;
        let Some(instruction) = decode(code, registers) else {
            // An illegal instruction that is no tile instruction.
            libc::abort();
        };
        TILES.with_borrow_mut(|tiles| tiles.execute(&instruction));
        registers[libc::REG_RIP as usize] += instruction.len as i64;
    }
}

/// # Safety
/// `code` must be readable for an instruction.
unsafe fn decode(code: *const u8, registers: &[i64; 23]) -> Option<Instruction> {
    // SAFETY: an instruction has at most 15 bytes; those of tiles at most 10.
    let at = |i: usize| unsafe { *code.add(i) };
    if at(0) != 0xc4 || at(1) & 0x1f != 2 {
        return None;
    }
    // R, X and B extend register numbers and are stored inverted, as is vvvv.
    let extension = |bit: u8| if at(1) & bit == 0 { 8 } else { 0 };
    let (opcode, modrm) = (at(3), at(4));
    let mut instruction = Instruction {
        opcode,
        prefix: at(2) & 3,
        vvvv: usize::from(!(at(2) >> 3) & 15),
        register: modrm >> 6 == 3,
        reg: usize::from(modrm >> 3 & 7),
        rm: usize::from(modrm & 7),
        base: 0,
        stride: 0,
        len: 5,
    };
    if instruction.register {
        return Some(instruction);
    }
    let mut base = instruction.rm;
    if base == 4 {
        let sib = at(5);
        instruction.len += 1;
        base = usize::from(sib & 7);
        let index = usize::from(sib >> 3 & 7) + extension(0x40);
        if index != 4 {
            instruction.stride = value(registers, index) << (sib >> 6);
        }
    }
    let displacement = instruction.len as usize;
    let offset = match modrm >> 6 {
        0 => 0,
        1 => {
            instruction.len += 1;
            i64::from(at(displacement) as i8)
        }
        _ => {
            instruction.len += 4;
            i64::from(i32::from_le_bytes([0, 1, 2, 3].map(|i| at(displacement + i))))
        }
    };
    if base == 5 && modrm >> 6 == 0 {
        return None;
    }
    instruction.base = value(registers, base + extension(0x20)).wrapping_add_signed(offset);
    Some(instruction)
}

/// Value of the general register with this number.
fn value(registers: &[i64; 23], number: usize) -> u64 {
    use libc::*;
    let places = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10,
        REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
    ];
    registers[places[number] as usize] as u64
}

impl Tiles {
    /// Prefixes: 0 none, 1 66, 2 F3, 3 F2.
    fn execute(&mut self, i: &Instruction) {
        match (i.opcode, i.prefix, i.register) {
            (0x49, 0, true) => self.rows = [0; 8],
            (0x49, 0, false) => self.configure(i.base as *const u8),
            (0x49, 3, true) => self.data[i.reg] = [[0; 64]; 16],
            (0x4b, 3, false) => self.for_each_row(i, |row, memory| {
                // SAFETY: the program loads this row.
                unsafe { std::ptr::copy_nonoverlapping(memory, row.as_mut_ptr(), row.len()) }
            }),
            (0x4b, 2, false) => self.for_each_row(i, |row, memory| {
                // SAFETY: the program stores this row.
                unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), memory, row.len()) }
            }),
            (0x5c, 2, true) => self.multiply(i.reg, i.rm, i.vvvv),
            _ => panic!("unknown tile instruction {:#x}, prefix {}", i.opcode, i.prefix),
        }
    }

    fn configure(&mut self, from: *const u8) {
        // SAFETY: the operand has 64 bytes.
        let bytes = unsafe { std::slice::from_raw_parts(from, 64) };
        assert_eq!((bytes[0], bytes[1]), (1, 0), "palette 1, start row 0");
        assert!(bytes[2..16].iter().chain(&bytes[32..48]).chain(&bytes[56..]).all(|byte| *byte == 0));
        for tile in 0..8 {
            self.row_bytes[tile] = u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]);
            self.rows[tile] = bytes[48 + tile];
            assert!(self.row_bytes[tile] <= 64 && self.rows[tile] <= 16);
        }
        self.data = [[[0; 64]; 16]; 8];
    }

    fn for_each_row(&mut self, i: &Instruction, mut f: impl FnMut(&mut [u8], *mut u8)) {
        let (rows, bytes) = (usize::from(self.rows[i.reg]), usize::from(self.row_bytes[i.reg]));
        assert!(rows > 0, "the tile is not configured");
        for (row, data) in self.data[i.reg].iter_mut().take(rows).enumerate() {
            f(&mut data[..bytes], i.base.wrapping_add(row as u64 * i.stride) as *mut u8);
        }
    }

    fn multiply(&mut self, sums: usize, a: usize, b: usize) {
        let (rows, columns, pairs) = (self.rows[sums], self.row_bytes[sums] / 4, self.row_bytes[a] / 4);
        assert!(self.rows[a] == rows && self.rows[b] as u16 == pairs && self.row_bytes[b] / 4 == columns);
        let bf16 = |row: &[u8; 64], i: usize| from_bf16(u16::from_le_bytes([row[2 * i], row[2 * i + 1]]));
        for row in 0..usize::from(rows) {
            for column in 0..usize::from(columns) {
                let (mut even, mut odd) = (0.0f32, 0.0f32);
                for pair in 0..usize::from(pairs) {
                    let (a, b) = (&self.data[a][row], &self.data[b][pair]);
                    even = bf16(a, 2 * pair).mul_add(bf16(b, 2 * column), even);
                    odd = bf16(a, 2 * pair + 1).mul_add(bf16(b, 2 * column + 1), odd);
                }
                let place = &mut self.data[sums][row][4 * column..][..4];
                let sum = f32::from_le_bytes([place[0], place[1], place[2], place[3]]);
                place.copy_from_slice(&(sum + (even + odd)).to_le_bytes());
            }
        }
    }
}
