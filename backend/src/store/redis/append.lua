-- KEYS: of each log its stream and its meta hash; then the hash of the room's state.
-- ARGV: of each log the number of its entries, then five values for each of them: id, record,
-- device (empty for none), message id, and the change of state: empty, `+` and the key to be set, or
-- `-` and the key to be removed.
-- Answers how many entries it has added; or, with nothing added, {which log, its last entry} of the
-- first log that is further than its first entry.
local VALUES = 5
local state = KEYS[#KEYS]
local logs = {}

-- Where an entry of the batch is the log's last one, unchanged, the batch is given again: the place
-- behind it. Never of a seal: two owners may write the same one, and one of them may have it.
local function repeated(log, last)
  if not is_message(last) then return nil end
  for at = log.from, log.to, VALUES do
    if ARGV[at] == last then
      local found = redis.call('XRANGE', log.stream, last, last)[1]
      if found and found[2][2] == ARGV[at + 1] then return at + VALUES end
      return nil
    end
  end
  return nil
end

local at = 1
for i = 1, (#KEYS - 1) / 2 do
  local from = at + 1
  local to = at + ARGV[at] * VALUES
  local log = { stream = KEYS[2 * i - 1], meta = KEYS[2 * i], from = from, to = to }
  local last = redis.call('HGET', log.meta, 'last') or '0-0'
  if not later(ARGV[from], last) then
    log.from = repeated(log, last)
    if not log.from then return { i, last } end
  end
  logs[i] = log
  at = to + 1
end

local added = 0
for _, log in ipairs(logs) do
  for at = log.from, log.to, VALUES do
    local id, record, device, message, change = unpack(ARGV, at, at + VALUES - 1)
    redis.call('XADD', log.stream, id, 'r', record)
    if not is_message(id) then
      redis.call('HSET', log.meta, 'last', id)
    elseif device == '' then
      redis.call('HSET', log.meta, 'last', id, 'message', id)
    else
      redis.call('HSET', log.meta, 'last', id, 'message', id, 'd:' .. device, message)
    end
    local what = string.sub(change, 1, 1)
    if what == '+' then
      redis.call('HSET', state, string.sub(change, 2), id .. ' ' .. record)
    elseif what == '-' then
      redis.call('HDEL', state, string.sub(change, 2))
    end
    added = added + 1
  end
end
return added
