"""The thread pool's code: LLVM text, for Linux on x86-64 and aarch64; elsewhere the same functions without threads.

``docs/threads.md`` says how the pool behaves and why; the comments in the text say how it works.  How to read it:
``@state`` is the one word on which caller and workers meet, ``@gc_parallel`` and ``@region`` are what a caller runs,
``@stretch`` how they share out chunks, ``@worker`` what a worker runs, ``@look`` what is done only now and then (read the affinity mask, place and create
workers).  Nothing here depends on vectors or on the processor's features.
"""

from __future__ import annotations

import string

from graphc.backends.llvm.pool_serial import COMMON, WITHOUT_THREADS
from graphc.backends.llvm.target import Target

__all__ = ["MOST_THREADS", "has_threads", "pool_module"]

#: threads of one region at most; the workers' count has 8 bits in @state
MOST_THREADS = 256
#: how long a worker that has nothing to do, and a caller that waits for the last chunks, look before they sleep
SPIN_NS = 50_000

#: what differs between the processors on which the pool has threads (Linux only: futex, affinity masks)
MACHINES = {
    "x86_64": {"futex": "202", "pause_name": "llvm.x86.sse2.pause()", "pause": "call void @llvm.x86.sse2.pause()"},
    "aarch64": {"futex": "98", "pause_name": "llvm.aarch64.isb(i32)", "pause": "call void @llvm.aarch64.isb(i32 15)"},
}

WITH_THREADS = COMMON + """
; The region under way.  Chunks not handed out yet: bits 32-63, signed (it sinks below 0 when several ask for the
; last one).  Seats, how many more workers may join: bits 16-31.  "The caller sleeps": bit 15.  Number of the region
; modulo 128, so that the word never stays the same: bits 8-14.  Workers inside: bits 0-7.
; A worker joins and takes its first chunk in one step, so a worker inside always has a chunk in hand; with no chunk
; left nobody can join, so the caller has only to wait until nobody is inside.  The low half is the futex on which
; workers (bit set 1) and the caller (bit set 2) sleep.
@state = internal global [16 x i64] zeroinitializer, align 128
; Workers that sleep or are about to: counted up by themselves before they look at @state for the last time, down by
; whoever ends the sleep.  The caller writes @state before it reads this, so one of the two sees the other.
@sleepers = internal global [32 x i32] zeroinitializer, align 128
; Task, context, number of chunks: written before @state, read by those inside.
@job = internal global [16 x i64] zeroinitializer, align 128
; More chunks than threads: task, context, chunks, stretches; and of each stretch the chunks taken (@stretch).
@divided = internal global [16 x i64] zeroinitializer, align 128
@taken = internal global [$most x i64] zeroinitializer, align 128
; 1 while a caller has the pool; all that follows is read and written by that caller only.
@busy = internal global [32 x i32] zeroinitializer, align 128
@workers = internal global i32 0        ; that exist
@threads = internal global [$most x i64] zeroinitializer  ; their handles
@placed = internal global [16 x i64] zeroinitializer      ; the processors on which they may run, a bit each
@most = internal global i32 0           ; threads of a region, at most; found by @look
@sure = internal global i32 0           ; regions until the next @look
@unjoined = internal global i32 0       ; regions in a row that no worker joined
@number = internal global i64 0         ; of the region
@granted = internal global i32 0        ; processors that the control group grants; 0: no limit
@limit = internal global i32 0          ; threads of a region, as the user wants it; 0: as many as there are processors
@changed = internal global i32 0        ; the last two were written since the last @look
@name = private unnamed_addr constant [14 x i8] c"graphc worker\\00"

declare i64 @syscall(i64, ...)
declare i32 @prctl(i32, ...)
declare i32 @clock_gettime(i32, ptr)
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @sched_getcpu()
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_setaffinity_np(i64, i64, ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_setdetachstate(ptr, i32)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)
declare i32 @sigdelset(ptr, i32)
declare void @$pause_name
declare i64 @llvm.smin.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i32 @llvm.smin.i32(i32, i32)
declare i32 @llvm.smax.i32(i32, i32)
declare i64 @llvm.ctpop.i64(i64)

define internal void @gc_parallel(ptr %task, ptr %context, i64 %chunks, i64 %threads) nounwind {
entry:
  %few = call i64 @llvm.smin.i64(i64 %threads, i64 %chunks)
  %single = icmp slt i64 %few, 2
  %huge = icmp sgt i64 %chunks, 2147483647
  %alone = or i1 %single, %huge
  br i1 %alone, label %serially, label %enter
enter:                       ; someone else has the pool, or this is a call from inside of a task: serially
  %taken = cmpxchg ptr @busy, i32 0, i32 1 acquire monotonic
  %mine = extractvalue { i32, i1 } %taken, 1
  br i1 %mine, label %parallel, label %serially
parallel:
  %wanted = call i64 @llvm.smin.i64(i64 %few, i64 $most)
  %n = trunc i64 %wanted to i32
  %several = icmp sgt i64 %chunks, %wanted
  br i1 %several, label %divide, label %one_each
one_each:
  call void @region(ptr %task, ptr %context, i64 %chunks, i32 %n)
  br label %end
divide:
  store ptr %task, ptr @divided
  store ptr %context, ptr getelementptr (i8, ptr @divided, i64 8)
  store i64 %chunks, ptr getelementptr (i8, ptr @divided, i64 16)
  store i64 %wanted, ptr getelementptr (i8, ptr @divided, i64 24)
  %bytes = shl i64 %wanted, 3
  call void @llvm.memset.p0.i64(ptr @taken, i8 0, i64 %bytes, i1 false)
  call void @region(ptr @stretch, ptr null, i64 %wanted, i32 %n)
  br label %end
end:
  store atomic i32 0, ptr @busy release, align 4
  ret void
serially:
  call void @serial(ptr %task, ptr %context, i64 %chunks)
  ret void
}

; The task of a region with more chunks than threads: a stretch of chunks, in order, then what is left of the others'.
; The caller has the first stretch in every region: in one launch after the other a thread meets what it has in its cache.
define internal void @stretch(ptr %none, i64 %seat) nounwind {
entry:
  %task = load ptr, ptr @divided
  %context = load ptr, ptr getelementptr (i8, ptr @divided, i64 8)
  %chunks = load i64, ptr getelementptr (i8, ptr @divided, i64 16)
  %stretches = load i64, ptr getelementptr (i8, ptr @divided, i64 24)
  br label %go
go:
  %k = phi i64 [ 0, %entry ], [ %after, %empty ]
  %there = add i64 %seat, %k
  %which = urem i64 %there, %stretches
  %below = mul i64 %which, %chunks
  %first = udiv i64 %below, %stretches
  %above = add i64 %below, %chunks
  %stop = udiv i64 %above, %stretches
  %counter = getelementptr i64, ptr @taken, i64 %which
  br label %take
take:
  %count = atomicrmw add ptr %counter, i64 1 monotonic
  %chunk = add i64 %first, %count
  %some = icmp slt i64 %chunk, %stop
  br i1 %some, label %run, label %empty
run:
  call void %task(ptr %context, i64 %chunk)
  br label %take
empty:
  %after = add i64 %k, 1
  %more = icmp slt i64 %after, %stretches
  br i1 %more, label %go, label %done
done:
  ret void
}

; How many workers a region for %n threads may have.
define internal i32 @seats(i32 %n) nounwind {
  %most = load i32, ptr @most
  %few = call i32 @llvm.smin.i32(i32 %n, i32 %most)
  %others = sub i32 %few, 1
  ret i32 %others
}

define internal void @region(ptr %task, ptr %context, i64 %chunks, i32 %n) nounwind {
entry:
  %sure = load i32, ptr @sure
  %sleeping0 = load atomic i32, ptr @sleepers monotonic, align 4
  %workers0 = load i32, ptr @workers
  %awake0 = sub i32 %workers0, %sleeping0
  %seats0 = call i32 @seats(i32 %n)
  %enough = icmp sle i32 %seats0, %awake0
  %known = icmp sgt i32 %sure, 0
  %changed = load atomic i32, ptr @changed monotonic, align 4
  %unchanged = icmp eq i32 %changed, 0
  %fresh = and i1 %known, %unchanged
  %calm = and i1 %enough, %fresh
  br i1 %calm, label %open, label %doubt
doubt:
  call void @look(i32 %n)
  br label %open
open:
  %surely = load i32, ptr @sure
  %less_sure = sub i32 %surely, 1
  store i32 %less_sure, ptr @sure
  store ptr %task, ptr @job
  store ptr %context, ptr getelementptr (i8, ptr @job, i64 8)
  store i64 %chunks, ptr getelementptr (i8, ptr @job, i64 16)
  %workers = load i32, ptr @workers
  %asked = call i32 @seats(i32 %n)
  %seats = call i32 @llvm.smin.i32(i32 %asked, i32 %workers)
  %number = load i64, ptr @number
  %next_number = add i64 %number, 1
  store i64 %next_number, ptr @number
  ; the caller takes chunk 0 without asking
  %rest = sub i64 %chunks, 1
  %high = shl i64 %rest, 32
  %seats64 = zext i32 %seats to i64
  %middle = shl i64 %seats64, 16
  %tag = and i64 %number, 127
  %low = shl i64 %tag, 8
  %word0 = or i64 %high, %middle
  %word = or i64 %word0, %low
  %before = atomicrmw xchg ptr @state, i64 %word seq_cst
  %sleeping = load atomic i32, ptr @sleepers seq_cst, align 4
  %awake = sub i32 %workers, %sleeping
  %missing = sub i32 %seats, %awake
  %call_more = icmp sgt i32 %missing, 0
  br i1 %call_more, label %rouse, label %start
rouse:
  %woken = call i64 (i64, ...) @syscall(i64 $futex, ptr @state, i32 $wake, i32 %missing, ptr null, ptr null, i32 1)
  %real = icmp sgt i64 %woken, 0
  br i1 %real, label %count, label %start
count:
  %woken32 = trunc i64 %woken to i32
  %was = atomicrmw sub ptr @sleepers, i32 %woken32 seq_cst
  br label %start
start:
  br label %run
run:
  %chunk = phi i64 [ 0, %start ], [ %following, %take ]
  call void %task(ptr %context, i64 %chunk)
  br label %take
take:
  %old = atomicrmw sub ptr @state, i64 4294967296 acq_rel
  %left = ashr i64 %old, 32
  %following = sub i64 %chunks, %left
  %there = icmp sgt i64 %left, 0
  br i1 %there, label %run, label %over
over:
  %final = call i64 @wait()
  %shifted = lshr i64 %final, 16
  %seats_left = and i64 %shifted, 65535
  %nobody = icmp eq i64 %seats_left, %seats64
  %unjoined = load i32, ptr @unjoined
  %unjoined1 = add i32 %unjoined, 1
  %counted = select i1 %nobody, i32 %unjoined1, i32 0
  store i32 %counted, ptr @unjoined
  %often = icmp sgt i32 %counted, 15
  br i1 %often, label %distrust, label %done
distrust:                    ; are the workers kept from running?
  store i32 0, ptr @unjoined
  store i32 0, ptr @sure
  br label %done
done:
  ret void
}

; Wait until no worker is inside; the state then.
define internal i64 @wait() nounwind {
entry:
  %first = load atomic i64, ptr @state acquire, align 8
  %first_inside = and i64 %first, 255
  %quick = icmp eq i64 %first_inside, 0
  br i1 %quick, label %done, label %spin
spin:
  %began = call i64 @now()
  br label %again
again:
  %turn = phi i32 [ 0, %spin ], [ %turn1, %pause ], [ 0, %clock ]
  $pause
  %seen = load atomic i64, ptr @state acquire, align 8
  %inside = and i64 %seen, 255
  %gone = icmp eq i64 %inside, 0
  br i1 %gone, label %done, label %pause
pause:
  %turn1 = add i32 %turn, 1
  %enough = icmp eq i32 %turn1, 32
  br i1 %enough, label %clock, label %again
clock:
  %now = call i64 @now()
  %passed = sub i64 %now, %began
  %late = icmp sgt i64 %passed, $spin
  br i1 %late, label %sleep, label %again
sleep:                       ; a long chunk, or its worker does not get a processor: leave it this one, and look before the next region
  call void @loosen()
  br label %tell
tell:
  %old = atomicrmw or ptr @state, i64 32768 acq_rel
  %still = and i64 %old, 255
  %free = icmp eq i64 %still, 0
  br i1 %free, label %woke, label %doze
doze:
  %told = or i64 %old, 32768
  %value = trunc i64 %told to i32
  %r = call i64 (i64, ...) @syscall(i64 $futex, ptr @state, i32 $sleep, i32 %value, ptr null, ptr null, i32 2)
  br label %woke
woke:
  %after = load atomic i64, ptr @state acquire, align 8
  %after_inside = and i64 %after, 255
  %ready = icmp eq i64 %after_inside, 0
  br i1 %ready, label %done, label %tell
done:
  %final = phi i64 [ %first, %entry ], [ %seen, %again ], [ %after, %woke ]
  ret i64 %final
}

; A chunk and a seat are there.
define internal i1 @open(i64 %state) nounwind {
  %left = ashr i64 %state, 32
  %some = icmp sgt i64 %left, 0
  %seats = and i64 %state, 4294901760
  %seat = icmp ne i64 %seats, 0
  %both = and i1 %some, %seat
  ret i1 %both
}

define internal ptr @worker(ptr %nothing) nounwind {
entry:
  %named = call i32 (i32, ...) @prctl(i32 15, ptr @name)
  br label %idle
idle:
  %began = call i64 @now()
  br label %again
again:
  %turn = phi i32 [ 0, %idle ], [ %turn1, %pause ], [ 0, %clock ]
  %seen = load atomic i64, ptr @state acquire, align 8
  %open = call i1 @open(i64 %seen)
  br i1 %open, label %join, label %pause
pause:
  $pause
  %turn1 = add i32 %turn, 1
  %enough = icmp eq i32 %turn1, 32
  br i1 %enough, label %clock, label %again
clock:
  %now = call i64 @now()
  %passed = sub i64 %now, %began
  %late = icmp sgt i64 %passed, $spin
  br i1 %late, label %sleep, label %again
sleep:
  %n0 = atomicrmw add ptr @sleepers, i32 1 seq_cst
  %last = load atomic i64, ptr @state seq_cst, align 8
  %opened = call i1 @open(i64 %last)
  br i1 %opened, label %stay, label %doze
doze:
  %value = trunc i64 %last to i32
  %r = call i64 (i64, ...) @syscall(i64 $futex, ptr @state, i32 $sleep, i32 %value, ptr null, ptr null, i32 1)
  %roused = icmp eq i64 %r, 0          ; then the caller has counted
  br i1 %roused, label %idle, label %stay
stay:
  %n1 = atomicrmw sub ptr @sleepers, i32 1 seq_cst
  br label %idle
join:                        ; a chunk and a seat less, one more inside
  %joined = sub i64 %seen, 4295032831
  %swap = cmpxchg ptr @state, i64 %seen, i64 %joined acq_rel monotonic
  %in = extractvalue { i64, i1 } %swap, 1
  br i1 %in, label %inside, label %idle
inside:
  %task = load ptr, ptr @job
  %context = load ptr, ptr getelementptr (i8, ptr @job, i64 8)
  %chunks = load i64, ptr getelementptr (i8, ptr @job, i64 16)
  br label %run
run:
  %word = phi i64 [ %seen, %inside ], [ %old, %run ]
  %left = ashr i64 %word, 32
  %chunk = sub i64 %chunks, %left
  call void %task(ptr %context, i64 %chunk)
  %old = atomicrmw sub ptr @state, i64 4294967296 acq_rel
  %old_left = ashr i64 %old, 32
  %there = icmp sgt i64 %old_left, 0
  br i1 %there, label %run, label %leave
leave:
  %mine = atomicrmw sub ptr @state, i64 1 acq_rel
  %both = and i64 %mine, 33023
  %asleep = icmp eq i64 %both, 32769   ; the last one inside, and the caller sleeps
  br i1 %asleep, label %tell, label %idle
tell:
  %told = call i64 (i64, ...) @syscall(i64 $futex, ptr @state, i32 $wake, i32 1, ptr null, ptr null, i32 2)
  br label %idle
}

define internal i64 @now() nounwind {
  %time = alloca [2 x i64], align 8
  %r = call i32 @clock_gettime(i32 1, ptr %time)
  %s = load i64, ptr %time
  %ns_at = getelementptr i64, ptr %time, i64 1
  %ns = load i64, ptr %ns_at
  %s_ns = mul i64 %s, 1000000000
  %sum = add i64 %s_ns, %ns
  ret i64 %sum
}

; Read the caller's affinity mask, keep the workers off the caller's processor, create workers that are missing.
define internal void @look(i32 %n) nounwind {
entry:
  %mask = alloca [16 x i64], align 8
  store [16 x i64] zeroinitializer, ptr %mask
  store i32 1000, ptr @sure
  store atomic i32 0, ptr @changed seq_cst, align 4
  %failed = call i32 @sched_getaffinity(i32 0, i64 128, ptr %mask)
  %cpu = call i32 @sched_getcpu()
  br label %count
count:
  %i = phi i64 [ 0, %entry ], [ %i1, %count ]
  %cpus = phi i64 [ 0, %entry ], [ %cpus1, %count ]
  %at = getelementptr i64, ptr %mask, i64 %i
  %bits = load i64, ptr %at
  %ones = call i64 @llvm.ctpop.i64(i64 %bits)
  %cpus1 = add i64 %cpus, %ones
  %word_of = sdiv i32 %cpu, 64
  %word64 = sext i32 %word_of to i64
  %here = icmp eq i64 %word64, %i
  %bit_of = and i32 %cpu, 63
  %bit64 = zext i32 %bit_of to i64
  %bit = shl i64 1, %bit64
  %own = select i1 %here, i64 %bit, i64 0
  %keep = xor i64 %own, -1
  %free = and i64 %bits, %keep
  store i64 %free, ptr %at
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, 16
  br i1 %more, label %count, label %counted
counted:
  %cpus32 = trunc i64 %cpus1 to i32
  call void @bound(i32 %cpus32)
  call void @place(ptr %mask)
  %have = load i32, ptr @workers
  %seats = call i32 @seats(i32 %n)
  %missing = icmp sgt i32 %seats, %have
  br i1 %missing, label %create, label %done
create:
  call void @grow(i32 %seats)
  br label %done
done:
  ret void
}

; The caller goes to sleep: the workers may run on its processor too, until the next @look.
define internal void @loosen() nounwind {
  %mask = alloca [16 x i64], align 8
  store [16 x i64] zeroinitializer, ptr %mask
  store i32 0, ptr @sure
  %failed = call i32 @sched_getaffinity(i32 0, i64 128, ptr %mask)
  call void @place(ptr %mask)
  ret void
}

; @most: what the user wants, else the processors of the mask (%cpus, 0: not known) and of the control group's grant.
define internal void @bound(i32 %cpus) nounwind {
  %limit = load atomic i32, ptr @limit monotonic, align 4
  %granted = load atomic i32, ptr @granted monotonic, align 4
  %unknown = icmp eq i32 %cpus, 0
  %there = select i1 %unknown, i32 %granted, i32 %cpus
  %endless = icmp eq i32 %granted, 0
  %quota = select i1 %endless, i32 %there, i32 %granted
  %found = call i32 @llvm.smin.i32(i32 %there, i32 %quota)
  %wanted = icmp sgt i32 %limit, 0
  %most = select i1 %wanted, i32 %limit, i32 %found
  %few = call i32 @llvm.smin.i32(i32 %most, i32 $most)
  %some = call i32 @llvm.smax.i32(i32 %few, i32 1)
  store i32 %some, ptr @most
  ret void
}

; The workers may run on these processors from now on (an empty mask: as before).
define internal void @place(ptr %mask) nounwind {
entry:
  br label %compare
compare:
  %i = phi i64 [ 0, %entry ], [ %i1, %compare ]
  %some = phi i64 [ 0, %entry ], [ %some1, %compare ]
  %differs = phi i64 [ 0, %entry ], [ %differs1, %compare ]
  %new_at = getelementptr i64, ptr %mask, i64 %i
  %new = load i64, ptr %new_at
  %old_at = getelementptr i64, ptr @placed, i64 %i
  %old = load i64, ptr %old_at
  %some1 = or i64 %some, %new
  %change = xor i64 %old, %new
  %differs1 = or i64 %differs, %change
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, 16
  br i1 %more, label %compare, label %compared
compared:
  %same = icmp eq i64 %differs1, 0
  %none = icmp eq i64 %some1, 0
  %keep = or i1 %same, %none
  br i1 %keep, label %done, label %copy
copy:
  %all = load [16 x i64], ptr %mask
  store [16 x i64] %all, ptr @placed
  %have = load i32, ptr @workers
  br label %next
next:
  %w = phi i32 [ 0, %copy ], [ %w1, %move ]
  %worker = icmp slt i32 %w, %have
  br i1 %worker, label %move, label %done
move:
  call void @put(i32 %w)
  %w1 = add i32 %w, 1
  br label %next
done:
  ret void
}

define internal void @put(i32 %w) nounwind {
  %w64 = sext i32 %w to i64
  %at = getelementptr i64, ptr @threads, i64 %w64
  %thread = load i64, ptr %at
  %r = call i32 @pthread_setaffinity_np(i64 %thread, i64 128, ptr @placed)
  ret void
}

; Create workers until there are %wanted, or as many as the system allows (then @most says so until the next @look).
define internal void @grow(i32 %wanted) nounwind {
entry:
  %attributes = alloca [32 x i64], align 16
  %all = alloca [16 x i64], align 8
  %old = alloca [16 x i64], align 8
  %a0 = call i32 @pthread_attr_init(ptr %attributes)
  %a1 = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 1048576)
  %a2 = call i32 @pthread_attr_setdetachstate(ptr %attributes, i32 1)
  ; a thread starts with its creator's signal mask: all blocked, but for what a fault in the thread itself raises
  %s0 = call i32 @sigfillset(ptr %all)
  %s1 = call i32 @sigdelset(ptr %all, i32 4)
  %s2 = call i32 @sigdelset(ptr %all, i32 7)
  %s3 = call i32 @sigdelset(ptr %all, i32 8)
  %s4 = call i32 @sigdelset(ptr %all, i32 11)
  %s5 = call i32 @pthread_sigmask(i32 2, ptr %all, ptr %old)
  br label %next
next:
  %have = load i32, ptr @workers
  %have64 = sext i32 %have to i64
  %at = getelementptr i64, ptr @threads, i64 %have64
  %error = call i32 @pthread_create(ptr %at, ptr %attributes, ptr @worker, ptr null)
  %count = add i32 %have, 1
  %good = icmp eq i32 %error, 0
  br i1 %good, label %created, label %refused
created:
  store i32 %count, ptr @workers
  call void @put(i32 %have)            ; an empty mask (the process has one processor) is refused: no harm
  %more = icmp slt i32 %count, %wanted
  br i1 %more, label %next, label %done
refused:
  store i32 %count, ptr @most
  br label %done
done:
  %s6 = call i32 @pthread_sigmask(i32 2, ptr %old, ptr null)
  %a3 = call i32 @pthread_attr_destroy(ptr %attributes)
  ret void
}

define internal void @gc_pool_limits(i32 %granted, i32 %limit) nounwind {
  store atomic i32 %granted, ptr @granted monotonic, align 4
  store atomic i32 %limit, ptr @limit monotonic, align 4
  store atomic i32 1, ptr @changed seq_cst, align 4
  ret void
}

; In the child of a fork, by its only thread, before fork returns: the workers stayed in the parent.
define internal void @gc_pool_forked() nounwind {
  store atomic i64 0, ptr @state release, align 8
  store i32 0, ptr @sleepers
  store i32 0, ptr @workers
  store i32 0, ptr @sure
  store i32 0, ptr @unjoined
  store atomic i32 0, ptr @busy release, align 4
  ret void
}

define internal i32 @gc_pool_workers() nounwind {
  %n = load i32, ptr @workers
  ret i32 %n
}
"""


def has_threads(target: Target) -> bool:
    return "linux" in target.triple and target.triple.startswith(tuple(MACHINES))


def pool_module(target: Target) -> str:
    """The text of the pool's module for ``target``: on other systems than Linux it has the same functions, without threads."""
    head = f'target triple = "{target.triple}"\n'
    if not has_threads(target):
        return head + WITHOUT_THREADS
    words = next(words for name, words in MACHINES.items() if target.triple.startswith(name))
    # 9, 10: FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET; 128: of this process only
    return head + string.Template(WITH_THREADS).substitute(words, most=MOST_THREADS, spin=SPIN_NS, sleep=9 | 128, wake=10 | 128)
