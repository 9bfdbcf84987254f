-- Merges claims into the sets of their conflict keys and returns the sets that have claimants of several requests.
--
-- KEYS     the epoch; the hashes are named in ARGV[3], which costs a fifth of as many KEYS
-- ARGV[1]  a token for the epoch, used when the store has none (its memory is new)
-- ARGV[2]  the most claimants a set may hold
-- ARGV[3]  MessagePack: for each hash {name, time to live in ms, 1 when a full set keeps its oldest (else its newest)}
-- ARGV[4]  MessagePack: claims {hash number, field "side|request id", revision, order key, claimant}
-- Returns MessagePack: {epoch, number dropped by the bound, {{hash number, version, {claimants}}, ...}}
--
-- A hash has one field for each claimant, holding "revision SPACE length-of-order-key SPACE order-key claimant", and
-- the field "v", its version. The order key is the one the bound goes by: the extreme the claimant has ever had.
-- A version is a time in microseconds, so it grows even when a hash has expired or the store has lost its memory.

-- Lua's own "<" goes by the server's locale; this goes by bytes.
local function before(a, b)
  local shorter = math.min(#a, #b)
  for i = 1, shorter do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function unpack_value(value)
  local rev, length, at = value:match('^(%d+) (%d+) ()')
  return tonumber(rev), value:sub(at, at + length - 1), value:sub(at + length)
end

-- Returns whether the claimant came in, and whether what the set says of it changed.
local function merge(key, claim, keeps_oldest)
  local field, rev, order, claimant = claim[2], claim[3], claim[4], claim[5]
  local held = redis.call('HGET', key, field)
  if not held then
    redis.call('HSET', key, field, rev .. ' ' .. #order .. ' ' .. order .. claimant)
    return true, true
  end
  local held_rev, held_order, held_claimant = unpack_value(held)
  local earlier = before(order, held_order)
  if earlier ~= keeps_oldest then order = held_order end
  local newer = rev > held_rev or (rev == held_rev and before(held_claimant, claimant))
  if not newer then rev, claimant = held_rev, held_claimant end
  local value = rev .. ' ' .. #order .. ' ' .. order .. claimant
  if value ~= held then redis.call('HSET', key, field, value) end
  return false, claimant ~= held_claimant
end

local function members_of(key)
  local members = {}
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    if flat[i] ~= 'v' then
      local _, order, claimant = unpack_value(flat[i + 1])
      members[#members + 1] = {field = flat[i], order = order, claimant = claimant}
    end
  end
  return members
end

-- Keeps the first `most` members, and returns the fields it dropped.
local function enforce_bound(key, members, most, keeps_oldest)
  for _, member in ipairs(members) do
    -- the key begins with the time as hexadecimal digits: as many as a number holds settle nearly every pair
    member.time = tonumber(member.order:sub(1, 13), 16)
  end
  table.sort(members, function(a, b)
    if not keeps_oldest then a, b = b, a end
    if a.time ~= b.time then return a.time < b.time end
    return before(a.order, b.order)
  end)
  local dropped = {}
  for i = #members, most + 1, -1 do
    dropped[#dropped + 1] = members[i].field
    redis.call('HDEL', key, members[i].field)
    members[i] = nil
  end
  return dropped
end

local function contested(members)
  local first
  for _, member in ipairs(members) do
    local request = member.field:match('^[^|]*|(.*)$')
    first = first or request
    if request ~= first then return true end
  end
  return false
end

local function claimants_of(members)
  local claimants = {}
  for i, member in ipairs(members) do claimants[i] = member.claimant end
  return claimants
end

redis.call('SET', KEYS[1], ARGV[1], 'NX')
-- a restart or a failover may have lost the last moments and kept the token: the server's run id tells
local epoch = redis.call('GET', KEYS[1]) .. '.' .. redis.call('INFO', 'server'):match('run_id:(%x+)')
local most = tonumber(ARGV[2])
local hashes = cmsgpack.unpack(ARGV[3])
local claims = cmsgpack.unpack(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- What a set held before: a claimant that comes in and is dropped at once has changed nothing.
local changed = {}
local came = {}
for _, claim in ipairs(claims) do
  local number, field = claim[1], claim[2]
  local is_new, differs = merge(hashes[number][1], claim, hashes[number][3] == 1)
  if is_new then
    came[number] = came[number] or {}
    came[number][field] = true
  elseif differs and not (came[number] and came[number][field]) then
    changed[number] = true
  end
end

local dropped_total = 0
local sets = {}
for number, hash in ipairs(hashes) do
  local key = hash[1]
  local version
  local size = redis.call('HLEN', key)
  if size > 1 then
    local held = redis.call('HGET', key, 'v')
    if held then
      version, size = tonumber(held), size - 1
    end
  end
  local members = size > 1 and members_of(key) or {}
  if size > most then
    for _, field in ipairs(enforce_bound(key, members, most, hash[3] == 1)) do
      dropped_total = dropped_total + 1
      if came[number] and came[number][field] then
        came[number][field] = nil
      else
        changed[number] = true
      end
    end
  end
  if changed[number] or (came[number] and next(came[number])) then
    if version and version >= now then version = version + 1 else version = now end
    redis.call('HSET', key, 'v', string.format('%.0f', version))
  end
  redis.call('PEXPIRE', key, hash[2])
  if contested(members) then sets[#sets + 1] = {number, version, claimants_of(members)} end
end
return cmsgpack.pack({epoch, dropped_total, sets})
