-- KEYS: of each log its stream and its meta hash; then, where it is asked for, the hash of the room's
-- state. ARGV: the record of a seal, and how many entries of each log are wanted.
-- Seals the epoch after each log's last one, and answers of each log: its last entry before, its meta
-- hash, and its latest entries, the last one first: id, the front of the record up to the end of the
-- device's name (see codec.rs), and the record's size. After all of them the state.
local HEADER = 28

local function epoch_after(id)
  local epoch = string.match(id, '^(%d+)%-')
  local nines = string.match(epoch, '9*$')
  local front = string.sub(epoch, 1, #epoch - #nines)
  local zeros = string.rep('0', #nines)
  if front == '' then return '1' .. zeros end
  local digit = string.byte(front, -1)
  return string.sub(front, 1, -2) .. string.char(digit + 1) .. zeros
end

local function front_of(record)
  if #record < HEADER then return record end
  return string.sub(record, 1, HEADER + string.byte(record, 25) * 256 + string.byte(record, 26))
end

local answer = {}
local logs = math.floor(#KEYS / 2)
for i = 1, logs do
  local stream, meta = KEYS[2 * i - 1], KEYS[2 * i]
  local last = redis.call('HGET', meta, 'last') or '0-0'
  local seal = epoch_after(last) .. '-0'
  redis.call('XADD', stream, seal, 'r', ARGV[1])
  redis.call('HSET', meta, 'last', seal)
  local tail = {}
  for _, entry in ipairs(redis.call('XREVRANGE', stream, '(' .. seal, '-', 'COUNT', ARGV[2])) do
    local record = entry[2][2]
    tail[#tail + 1] = { entry[1], front_of(record), #record }
  end
  answer[i] = { last, redis.call('HGETALL', meta), tail }
end
if #KEYS > 2 * logs then answer[logs + 1] = redis.call('HGETALL', KEYS[#KEYS]) end
return answer
