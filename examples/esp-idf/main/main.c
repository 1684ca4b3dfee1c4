// An ESP32 that publishes its temperature to Holdfast over MQTT, as the client
// certificate in certs/ says who it is. Wi-Fi is up when wifi_connect() of ESP-IDF's
// protocol_examples_common returns.
#include <inttypes.h>
#include <stdio.h>
#include "esp_event.h"
#include "esp_log.h"
#include "esp_netif.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "mqtt_client.h"
#include "nvs_flash.h"
#include "protocol_examples_common.h"
#include "driver/temperature_sensor.h"

extern const char ca_pem[] asm("_binary_ca_pem_start"), cert_pem[] asm("_binary_cert_pem_start"), key_pem[] asm("_binary_key_pem_start");

static void on_event(void *arg, esp_event_base_t base, int32_t id, void *data)
{
    esp_mqtt_event_handle_t event = data;
    if (id == MQTT_EVENT_PUBLISHED) // PUBACK: the reading is on the hub's disk
        ESP_LOGI("holdfast", "kept: message %d", event->msg_id);
    else if (id == MQTT_EVENT_ERROR)
        ESP_LOGE("holdfast", "connection error %d", event->error_handle->error_type);
}

void app_main(void)
{
    ESP_ERROR_CHECK(nvs_flash_init());
    ESP_ERROR_CHECK(esp_netif_init());
    ESP_ERROR_CHECK(esp_event_loop_create_default());
    ESP_ERROR_CHECK(example_connect());

    const esp_mqtt_client_config_t config = {
        .broker.address.uri = CONFIG_HOLDFAST_URI, // mqtts://hub.example:8883
        .broker.verification.certificate = ca_pem,
        .credentials.authentication = {.certificate = cert_pem, .key = key_pem},
        .session = {.protocol_ver = MQTT_PROTOCOL_V_5, .disable_clean_session = true},
    };
    esp_mqtt_client_handle_t client = esp_mqtt_client_init(&config);
    ESP_ERROR_CHECK(esp_mqtt_client_register_event(client, MQTT_EVENT_ANY, on_event, NULL));
    ESP_ERROR_CHECK(esp_mqtt_client_start(client));

    temperature_sensor_handle_t sensor;
    temperature_sensor_config_t range = TEMPERATURE_SENSOR_CONFIG_DEFAULT(-10, 80);
    ESP_ERROR_CHECK(temperature_sensor_install(&range, &sensor));
    ESP_ERROR_CHECK(temperature_sensor_enable(sensor));
    for (;; vTaskDelay(pdMS_TO_TICKS(10000))) {
        float celsius;
        char text[16];
        ESP_ERROR_CHECK(temperature_sensor_get_celsius(sensor, &celsius));
        int n = snprintf(text, sizeof text, "%.2f", celsius);
        // QoS 1, from the outbox in memory: sent again until it is acknowledged.
        esp_mqtt_client_enqueue(client, "data/temperature", text, n, 1, 0, true);
    }
}
