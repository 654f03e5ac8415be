-- KEYS: a log's stream and its meta hash. ARGV: a position.
-- Notes that what is before the position is trimmed, which hides it from readers. Answers the last
-- entry that is, which may be of an earlier trim; false where nothing ever was.
local PAGE = 16
local stream, meta = KEYS[1], KEYS[2]
local trimmed = redis.call('HGET', meta, 'trimmed')
local before = redis.call('XREVRANGE', stream, '(' .. ARGV[1], '-', 'COUNT', 1)[1]
local last = before and before[1]
if not last or (trimmed and not later(last, trimmed)) then return trimmed end

local message = nil
local from = last
repeat
  local page = redis.call('XREVRANGE', stream, from, '-', 'COUNT', PAGE)
  for _, entry in ipairs(page) do
    if is_message(entry[1]) then
      message = entry[1]
      break
    end
  end
  if #page > 0 then from = '(' .. page[#page][1] end
until message or #page < PAGE

redis.call('HSET', meta, 'trimmed', last)
if message then redis.call('HSET', meta, 'trimmed_message', message) end
return last
