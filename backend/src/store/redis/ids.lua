-- Whether the id of an entry, EPOCH-COUNTER, is later than another one. The numbers have up to 64
-- bits, which Lua's do not; of digits, the longer are more.
local function more(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

local function later(a, b)
  local epoch_a, counter_a = string.match(a, '^(%d+)%-(%d+)$')
  local epoch_b, counter_b = string.match(b, '^(%d+)%-(%d+)$')
  if epoch_a ~= epoch_b then return more(epoch_a, epoch_b) end
  return more(counter_a, counter_b)
end

-- Counter 0 is the seal of an epoch, which is no message.
local function is_message(id)
  return string.sub(id, -2) ~= '-0'
end

