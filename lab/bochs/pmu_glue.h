/////////////////////////////////////////////////////////////////////////
// SPDX-License-Identifier: GPL-2.0
/////////////////////////////////////////////////////////////////////////
//
// The connection of one CPU to its model of a performance monitoring unit,
// whose interface is pmu.h.  The model exists if the bochsrc says
//
//   pmu: machine=PATH, truth=PATH
//
// It is told of work (work.h) lazily, by BX_CPU_C::pmu_sync(), before
// anything changes that the meaning of that work depends on.

#ifndef BX_CPU_PMU_GLUE_H
#define BX_CPU_PMU_GLUE_H

#include "pmu.h"

// Does the instruction in flight count as retired already?
enum bx_pmu_in_flight {
  BX_PMU_NOT_YET,
  BX_PMU_RETIRES,
  BX_PMU_RETIRES_BRANCH
};

// The mark: guest or host code writes its totals so far to the truth file.
// RAX and the displacement are 96 bits that no ordinary code has by accident;
// elsewhere it is a long NOP.
enum { BX_PMU_MARK_DISPLACEMENT = 0x4b4d4454 };
#define BX_PMU_MARK_RAX BX_CONST64(0x746f70646f776e21)

struct bx_pmu_glue {
  struct pmu *model;            // NULL if there is no PMU

  Bit64u synced[PMU_NR_WORK];   // what the model has been told of
  Bit64u icount_before_reset;   // icount starts again from 0

  unsigned cpl;                 // of the context that the model knows
  Bit64u owner;                 // of VMX non-root operation
  bool switching;               // VM entry or VM exit under way
  bool unwinding;               // the instruction in flight will not retire

  Bit64u deadline;              // retired instructions, 0 for none
  bool armed;                   // the timer runs
  int timer;

  unsigned pmi_vector;          // of a PMI on its way, 0 for none

  Bit64u debugctl;              // IA32_DEBUGCTL
  Bit64u inert[102];            // registers without effect (inert_msrs)
};

#endif
