/////////////////////////////////////////////////////////////////////////
// SPDX-License-Identifier: GPL-2.0
/////////////////////////////////////////////////////////////////////////
//
// What one CPU does, counted for a performance monitoring unit: retired
// instructions, branches, mispredictions, cache and TLB misses.
//
// Every count is plain and monotonic.  No instruction pays for it unless it
// is a branch, a REP iteration or takes a slow path anyway; the number of
// retired instructions comes from icount, less the ticks that retired none.
//
// The predictor and the instruction cache are the simplest ones that tell
// a predictable loop from an unpredictable one, and code that fits from code
// that does not.  They depend on nothing but the instruction stream, so two
// runs of the same guest count the same.

#ifndef BX_CPU_WORK_H
#define BX_CPU_WORK_H

class bx_cpu_work_c {
public:
  Bit32u history;             // of conditional branches, the last one in bit 0
  Bit32u returns_top;
  Bit64u branches;            // branch instructions retired, taken or not
  Bit64u branch_misses;       // of those, mispredicted
  Bit64u fetch_misses;        // instruction cache line misses
  Bit64u page_walks;          // data TLB misses that walked the page tables
  Bit64u line_flushes;        // CLFLUSH, CLFLUSHOPT
  Bit64u repeats;             // iterations of REP instructions but the last
  Bit64u empty_ticks;         // ticks of icount that retired no instruction
  Bit64u fast_repeats;        // repeats without a tick of icount

  bx_cpu_work_c() { memset(this, 0, sizeof(*this)); }

  // an exception or a VM exit went back to the main loop, which ticks icount
  void unwound(void) { empty_ticks++; }

  // icount ticks, but the REP instruction goes on
  void repeat(void) { repeats++; empty_ticks++; }

  // many iterations of a string instruction at once
  void repeat_fast(Bit32u count) { repeats += count; fast_repeats += count; }

  void taken(bx_address rip, bx_address target)
  {
    Bit8u *counter = conditional(rip), was = *counter;

    branch_misses += was < 2;
    *counter = was + (was < 3);
    history = 2 * history + 1;
    fetch(target);
  }

  void not_taken(bx_address rip)
  {
    Bit8u *counter = conditional(rip), was = *counter;

    branch_misses += was >= 2;
    *counter = was - (was >= 1);
    history = 2 * history;
  }

  void jump(bx_address target)
  {
    branches++;
    fetch(target);
  }

  void jump_indirect(bx_address rip, bx_address target)
  {
    bx_address *guess = &targets[(rip ^ (rip >> 10)) & (TARGETS - 1)];

    if (*guess != target) branch_misses++;
    *guess = target;
    jump(target);
  }

  void call(bx_address next, bx_address target)
  {
    push_return(next);
    jump(target);
  }

  void call_indirect(bx_address rip, bx_address next, bx_address target)
  {
    push_return(next);
    jump_indirect(rip, target);
  }

  void ret(bx_address target)
  {
    returns_top = (returns_top - 1) & (RETURNS - 1);
    if (returns[returns_top] != target) branch_misses++;
    jump(target);
  }

  // Far transfers are never predicted, and the pipeline drains anyway: count
  // them as branches only.
  void far_branch(bx_address target) { jump(target); }

private:
  enum {
    COUNTERS = 4096,            // 2-bit counters of the direction predictor
    TARGETS = 1024,             // indirect branch targets
    RETURNS = 16,               // return address stack
    LINE_SHIFT = 6,             // 64 bytes
    LINES = 512                 // 32 KB, direct mapped
  };

  Bit8u counters[COUNTERS];     // 0, 1: not taken; 2, 3: taken
  bx_address targets[TARGETS];
  bx_address returns[RETURNS];
  bx_address lines[LINES];

  // The counter of a conditional branch; who calls this moves it. None of it
  // has a branch of its own: it runs for every branch of the guest, and the
  // host would mispredict what the guest mispredicts.
  Bit8u *conditional(bx_address rip)
  {
    Bit32u low = (Bit32u) rip;

    branches++;
    return &counters[(low ^ (low >> 12) ^ history) & (COUNTERS - 1)];
  }

  void push_return(bx_address next)
  {
    returns[returns_top] = next;
    returns_top = (returns_top + 1) & (RETURNS - 1);
  }

  void fetch(bx_address target)
  {
    bx_address line = target >> LINE_SHIFT, *slot = &lines[line & (LINES - 1)];

    if (*slot != line) {
      *slot = line;
      fetch_misses++;
    }
  }
};

#endif
