-- Forward.lua is what this project began as: one process between two taps, which
-- lets frames pass at full speed up to three quarters of a quota, then drops them
-- with rising probability, and counts how often each byte occurs.
--
--   luajit forward.lua TAP0 TAP1 [QUOTA-BYTES [WINDOW-SECONDS]]
--
-- It is a peer to measure against, with what LuaJIT is good at: no copies, no
-- garbage in the loop, system calls by FFI.
local ffi = require "ffi"
local bit = require "bit"
ffi.cdef [[
int open(const char *, int);
int ioctl(int, unsigned long, void *);
long read(int, void *, size_t);
long write(int, const void *, size_t);
struct pollfd { int fd; short events, revents; };
int poll(struct pollfd *, unsigned long, int);
struct timespec { long sec, nsec; };
int clock_gettime(int, struct timespec *);
char *strerror(int);
]]
local C = ffi.C
local O_RDWR, O_NONBLOCK = 2, 0x800
local TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454ca, 2, 0x1000
local POLLIN, EAGAIN, CLOCK_MONOTONIC = 1, 11, 1

local function tap(name)
  local fd = C.open("/dev/net/tun", bit.bor(O_RDWR, O_NONBLOCK))
  local ifr = ffi.new("uint8_t[40]")
  ffi.copy(ifr, name)
  ffi.cast("uint16_t *", ifr + 16)[0] = bit.bor(IFF_TAP, IFF_NO_PI)
  if fd < 0 or C.ioctl(fd, TUNSETIFF, ifr) < 0 then
    error(name .. ": " .. ffi.string(C.strerror(ffi.errno())))
  end
  return fd
end

local quota = tonumber(arg[3] or 1e15)
local window = tonumber(arg[4] or 300)
local fds = ffi.new("struct pollfd[2]")
for i = 0, 1 do
  fds[i].fd, fds[i].events = tap(arg[i + 1]), POLLIN
end

local ts = ffi.new("struct timespec")
local function now()
  C.clock_gettime(CLOCK_MONOTONIC, ts)
  return tonumber(ts.sec) + tonumber(ts.nsec) / 1e9
end

local buf = ffi.new("uint8_t[65536]")
local counts = ffi.new("uint32_t[256]")
local used = ffi.new("double[2]")
local ends = now() + window

local function pass(dir, n)
  local share = used[dir] / quota
  if share > 0.75 and math.random() < (share - 0.75) / 0.25 then
    return false
  end
  used[dir] = used[dir] + n
  return true
end

while true do
  C.poll(fds, 2, -1)
  if now() > ends then
    used[0], used[1], ends = 0, 0, now() + window
  end
  for dir = 0, 1 do
    if fds[dir].revents ~= 0 then
      local from, to = fds[dir].fd, fds[1 - dir].fd
      for _ = 1, 64 do -- the other direction wants its turn
        local n = tonumber(C.read(from, buf, 65536))
        if n <= 0 then
          if ffi.errno() ~= EAGAIN then
            error("read: " .. ffi.string(C.strerror(ffi.errno())))
          end
          break
        end
        for i = 0, n - 1 do
          counts[buf[i]] = counts[buf[i]] + 1
        end
        if pass(dir, n) then
          C.write(to, buf, n)
        end
      end
    end
  end
end
