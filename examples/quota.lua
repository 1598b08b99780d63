#!/usr/bin/luajit
-- quota.lua is what this project began as, in 2014, as a stage: a quota on five
-- minutes, with a count of bytes.
--
--   tunread tap0 | quota.lua 10e9 | tunwrite tap1
--
-- usage: quota.lua QUOTA-BYTES [WINDOW-SECONDS] < stream > stream
--
-- Everything passes up to 75% of the quota. From there on frames are dropped with
-- a probability that rises, to 1 at the quota. At the end of each window, and of
-- the input, stderr gets how often each byte occurred.
--
-- Needs Debian's luajit and lua-messagepack.
local ffi = require "ffi"
local msgpack = require "MessagePack"
ffi.cdef [[
long read(int, void *, size_t);
long write(int, const void *, size_t);
void *memmove(void *, const void *, size_t);
struct pollfd { int fd; short events, revents; };
int poll(struct pollfd *, unsigned long, int);
struct timespec { long sec, nsec; };
int clock_gettime(int, struct timespec *);
void *signal(int, void *);
char *strerror(int);
]]
local C = ffi.C
local CLOCK_MONOTONIC, POLLIN, EINTR, SIGINT, SIG_IGN = 1, 1, 4, 2, 1
local MAX_FRAME = 2 ^ 20
local MAX_VALUE = MAX_FRAME + 2 ^ 16
local READ = 2 ^ 18

local quota, window = tonumber(arg[1]), tonumber(arg[2] or 300)
if not quota or not window or window <= 0 or #arg > 2 then
  io.stderr:write("usage: quota.lua QUOTA-BYTES [WINDOW-SECONDS] < stream > stream\n")
  os.exit(2)
end

local function fail(what)
  io.stderr:write("quota.lua: ", what, "\n")
  os.exit(1)
end

-- The result of a system call. It fails if that has failed.
local function checked(what, n)
  n = tonumber(n)
  if n < 0 and ffi.errno() ~= EINTR then
    fail(what .. ": " .. ffi.string(C.strerror(ffi.errno())))
  end
  return n
end

local clock = ffi.new "struct timespec"
local function now()
  C.clock_gettime(CLOCK_MONOTONIC, clock)
  return tonumber(clock.sec) + tonumber(clock.nsec) / 1e9
end

-- The window.

local counts = ffi.new "double[256]" -- exact up to 2^53
local used, dropped = 0, 0
local ends = now() + window

local function pass(frame, size)
  for i = 0, size - 1 do
    counts[frame[i]] = counts[frame[i]] + 1
  end
  if math.random() < (used / quota - 0.75) / 0.25 then
    dropped = dropped + 1
    return false
  end
  used = used + size
  return true
end

local function report()
  local lines = { ("quota.lua: passed %.0f bytes of %.0f, dropped %.0f frames; of each byte came\n"):format(used, quota, dropped) }
  for row = 0, 255, 16 do
    local line = { ("%02x"):format(row) }
    for byte = row, row + 15 do
      line[#line + 1] = (" %8.0f"):format(counts[byte])
    end
    lines[#lines + 1] = table.concat(line) .. "\n"
  end
  io.stderr:write(table.concat(lines))
  ffi.fill(counts, ffi.sizeof(counts))
  used, dropped, ends = 0, 0, now() + window
end

-- The stream. A value is at buf + at, and buf holds `have` bytes.

local buf = ffi.new("uint8_t[?]", MAX_VALUE + READ)

local function uint32(p)
  return ((p[0] * 256 + p[1]) * 256 + p[2]) * 256 + p[3]
end

-- The size of a canonical value, where its frame is, and the frame's size: the
-- two heads of frame/doc.go. Nothing if it is another value.
local function canonical(p, have)
  if have < 27 or p[0] ~= 0x93 or p[1] ~= 0xcf then
    return
  end
  local head = p[10] == 0xc0 and 16 or p[10] == 0xc4 and p[11] == 10 and 27
  if head and p[head - 5] == 0xc6 then
    local size = uint32(p + head - 4)
    return head + size, p + head, size
  end
end

-- The same for any value, with the library; of an annotation only its size.
local partial = {}
local function any(cursor, at)
  cursor.i = at + 1
  local first = buf[at]
  local array = first >= 0x90 and first <= 0x9f or first == 0xdc or first == 0xdd
  local map = first >= 0x80 and first <= 0x8f or first == 0xde or first == 0xdf
  if not array and not map then
    error(("byte 0x%02x begins neither a frame nor an annotation"):format(first), 0)
  end
  local value = msgpack.unpack_cursor(cursor)
  local size = cursor.i - 1 - at
  if map then
    return size
  end
  local frame = value[3]
  if type(frame) ~= "string" then
    error("the third element is no frame", 0)
  end
  return size, ffi.cast("const uint8_t *", frame), #frame, frame -- which keeps it in memory
end

-- Deal with the values in buf: those that pass move to its beginning. Returns
-- how much that is, how much was dealt with, and what was wrong behind it.
local function values(have)
  local at, out, cursor = 0, 0, nil
  while at < have do
    local size, frame, length, anchor = canonical(buf + at, have - at)
    if not size then
      cursor = cursor or { s = ffi.string(buf, have), j = have, underflow = function() error(partial) end }
      -- buf has changed in front of `at` only, so that both see the same.
      local ok
      ok, size, frame, length, anchor = pcall(any, cursor, at)
      if not ok then
        if size ~= partial then
          return out, at, tostring(size)
        elseif have - at > MAX_VALUE then
          return out, at, "the value has more than 1 MiB and 64 KiB"
        end
        return out, at
      end
    end
    if frame and length > MAX_FRAME then
      return out, at, ("a frame of %.0f bytes, the most is 1 MiB"):format(length)
    elseif size > have - at then
      return out, at
    end
    if not frame or pass(frame, length) then
      if out < at then
        C.memmove(buf + out, buf + at, size)
      end
      out = out + size
    end
    at = at + size
  end
  return out, at
end

math.randomseed(os.time())
-- ^C reaches all stages at once: the source stops, the others come to the end of
-- their input.
C.signal(SIGINT, ffi.cast("void *", SIG_IGN))

local fds = ffi.new("struct pollfd[2]", { { 0, POLLIN }, { 1, 0 } }) -- of stdout, whether its reader is gone
local have, offset = 0, 0
while true do
  local left = ends - now()
  if left <= 0 then
    report()
  elseif checked("poll", C.poll(fds, 2, math.ceil(left * 1000))) > 0 then
    if fds[1].revents ~= 0 then
      break
    end
    local n = checked("read", C.read(0, buf + have, READ))
    if n == 0 then
      if have > 0 then
        fail(("offset %.0f: the input ends inside a value"):format(offset))
      end
      break
    end
    have = have + math.max(n, 0)
    local size, done, wrong = values(have)
    local written = 0
    while written < size do
      written = written + math.max(0, checked("write", C.write(1, buf + written, size - written)))
    end
    have, offset = have - done, offset + done
    if wrong then
      fail(("offset %.0f: %s"):format(offset, wrong))
    end
    C.memmove(buf, buf + done, have)
  end
end
report()
