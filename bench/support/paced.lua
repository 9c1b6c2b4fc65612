-- For wrk: a steady rate instead of as much as possible. Each connection waits before every request, on average as many ms as
-- the argument says, between none and twice that.
local wait_ms_max

function init(args)
  wait_ms_max = 2 * tonumber(args[1])
end

function delay()
  return math.random(0, wait_ms_max)
end
