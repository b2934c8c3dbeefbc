"""The part of the thread pool's code that has no threads: the table of its functions, and the whole pool on systems where there are none."""

from __future__ import annotations

__all__ = ["COMMON", "WITHOUT_THREADS"]

#: the module's one symbol, a table of what Python asks for: a module of the engine has one symbol
COMMON = """
@gc_pool = constant [4 x ptr] [ptr @gc_parallel, ptr @gc_pool_limits, ptr @gc_pool_forked, ptr @gc_pool_workers]

define internal void @serial(ptr %task, ptr %context, i64 %chunks) nounwind {
entry:
  %some = icmp sgt i64 %chunks, 0
  br i1 %some, label %next, label %done
next:
  %chunk = phi i64 [ 0, %entry ], [ %after, %next ]
  call void %task(ptr %context, i64 %chunk)
  %after = add nuw nsw i64 %chunk, 1
  %more = icmp slt i64 %after, %chunks
  br i1 %more, label %next, label %done
done:
  ret void
}
"""

#: where there are no threads
WITHOUT_THREADS = COMMON + """
define internal void @gc_parallel(ptr %task, ptr %context, i64 %chunks, i64 %threads) nounwind {
  call void @serial(ptr %task, ptr %context, i64 %chunks)
  ret void
}
define internal void @gc_pool_limits(i32 %granted, i32 %limit) nounwind {
  ret void
}
define internal void @gc_pool_forked() nounwind {
  ret void
}
define internal i32 @gc_pool_workers() nounwind {
  ret i32 0
}
"""
