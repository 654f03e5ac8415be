-- Keeps the list of the instances that live, in one step.
-- KEYS: a sorted set of instances by the time at which their leases end, hashes of their records and
-- of their loads, and a hash: the registry's clock, and the version of the list.
-- ARGV: what (renew, look, leave), the instance, its record (its address first, then a space), its
-- load, the lease in ms, the version that the caller has, and how many instances there may be.
-- Answers {whether the instance was not in the list, version}, and then of each instance its id,
-- record and load, unless the caller has that version; or {-1} where the list is full.
local due, records, loads, clock = unpack(KEYS)
local what, id, record, load, lease, known, most = unpack(ARGV)
lease = tonumber(lease)

local function number(field)
  return tonumber(redis.call('HGET', clock, field) or '')
end

-- The registry's clock goes on only while it is asked, and in small steps: so no lease ends because
-- the server was away, or because its clock was set.
local time = redis.call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000)
local gap = math.max(at - (number('at') or at), 0)
local now = (number('now') or 0) + math.min(gap, math.floor(lease / 2))
redis.call('HSET', clock, 'at', string.format('%d', at), 'now', string.format('%d', now))
if gap > lease then
  -- Nobody was here: all have time to come back.
  for _, one in ipairs(redis.call('ZRANGE', due, 0, -1)) do
    local score = tonumber(redis.call('ZSCORE', due, one))
    redis.call('ZADD', due, math.max(score, now + lease + 3000), one)
  end
end

local changed = false
local function remove(one)
  if redis.call('ZREM', due, one) == 1 then changed = true end
  redis.call('HDEL', records, one)
  redis.call('HDEL', loads, one)
end
local function address(text)
  return text and string.match(text, '^(%S+) ')
end

for _, one in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now)) do remove(one) end
local absent = not redis.call('ZSCORE', due, id)
if what == 'renew' then
  if absent then
    -- Who was at this address before is no more.
    for _, one in ipairs(redis.call('ZRANGE', due, 0, -1)) do
      if address(redis.call('HGET', records, one)) == address(record) then remove(one) end
    end
    if redis.call('ZCARD', due) >= tonumber(most) then return { -1 } end
  end
  redis.call('ZADD', due, now + lease, id)
  if redis.call('HGET', records, id) ~= record then
    redis.call('HSET', records, id, record)
    changed = true
  end
  redis.call('HSET', loads, id, load)
elseif what == 'leave' then
  remove(id)
end

local version = redis.call('HGET', clock, 'version') or '0'
if changed then version = tostring(redis.call('HINCRBY', clock, 'version', 1)) end
local answer = { absent and 1 or 0, version }
if version ~= known then
  for _, one in ipairs(redis.call('ZRANGE', due, 0, -1)) do
    table.insert(answer, one)
    table.insert(answer, redis.call('HGET', records, one) or '')
    table.insert(answer, redis.call('HGET', loads, one) or '')
  end
end
return answer
